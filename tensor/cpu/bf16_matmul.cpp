// tensor/cpu/bf16_matmul.cpp - oneDNN matmul primitives, kept by form because they are dear to
// make.
#include "tensor/cpu/bf16_matmul.h"

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "tensor/check.h"

namespace murmur {
namespace {

using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, bool, int64_t, bool, int64_t, DType,
                       float, bool>;

struct Plan {
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c;
};

dnnl::engine& dnnl_engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

dnnl::memory::desc matrix(int64_t rows, int64_t cols, int64_t stride, bool transposed,
                          dnnl::memory::data_type type) {
  return transposed ? dnnl::memory::desc({rows, cols}, type, {1, stride})
                    : dnnl::memory::desc({rows, cols}, type, {stride, 1});
}

Plan make_plan(const Bf16Product& p) {
  using Type = dnnl::memory::data_type;
  Plan plan;
  plan.a = matrix(p.m, p.k, p.a_stride, p.transpose_a, Type::bf16);
  plan.b = matrix(p.k, p.n, p.b_stride, p.transpose_b, Type::bf16);
  plan.c = matrix(p.m, p.n, p.c_stride, false, p.c_type == DType::f32 ? Type::f32 : Type::bf16);
  dnnl::primitive_attr attributes;
  if (p.alpha != 1) attributes.set_output_scales(0, {p.alpha});
  if (p.accumulate) {
    dnnl::post_ops post;
    post.append_sum(1.f);
    attributes.set_post_ops(post);
  }
  plan.primitive =
      dnnl::matmul({dnnl::matmul::desc(plan.a, plan.b, plan.c), attributes, dnnl_engine()});
  return plan;
}

}  // namespace

void bf16_matmul(const Bf16Product& p) {
  // Per thread: made and run inside one worker, a primitive plans for that one thread.
  thread_local std::map<Key, Plan> plans;
  thread_local dnnl::stream stream(dnnl_engine());
  Key key{p.m,           p.n,        p.k,      p.a_stride, p.transpose_a, p.b_stride,
          p.transpose_b, p.c_stride, p.c_type, p.alpha,    p.accumulate};
  try {
    auto it = plans.find(key);
    if (it == plans.end()) it = plans.emplace(key, make_plan(p)).first;
    Plan& plan = it->second;
    dnnl::memory a(plan.a, dnnl_engine(), const_cast<bf16*>(p.a)),
        b(plan.b, dnnl_engine(), const_cast<bf16*>(p.b));
    dnnl::memory c(plan.c, dnnl_engine(), p.c);
    plan.primitive.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
    stream.wait();
  } catch (const dnnl::error& e) {
    throw Error(std::string("matmul: oneDNN bf16: ") + e.message);
  }
}

}  // namespace murmur
