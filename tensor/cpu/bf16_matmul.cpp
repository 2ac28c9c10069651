// tensor/cpu/bf16_matmul.cpp - products of bf16 matrices by oneDNN: its own primitives, cached by
// form because they are costly to create, or sgemm of both sides as fp32.
#include "tensor/cpu/bf16_matmul.h"

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "tensor/tensor.h"

namespace murmur {
namespace {

using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, bool, int64_t, bool>;

struct Plan {
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c;
};

dnnl::engine& dnnl_engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

dnnl::memory::desc matrix(int64_t rows, int64_t cols, int64_t stride, bool turned,
                          dnnl::memory::data_type type) {
  return turned ? dnnl::memory::desc({rows, cols}, type, {1, stride})
                : dnnl::memory::desc({rows, cols}, type, {stride, 1});
}

Plan make_plan(const Bf16Product& p) {
  using Type = dnnl::memory::data_type;
  Plan plan;
  plan.a = matrix(p.m, p.k, p.left.stride, !p.left.lines_are_rows, Type::bf16);
  plan.b = matrix(p.k, p.n, p.right.stride, p.right.lines_are_rows, Type::bf16);
  plan.c = matrix(p.m, p.n, p.n, false, Type::f32);
#if DNNL_VERSION_MAJOR >= 3
  plan.primitive = dnnl::matmul({dnnl_engine(), plan.a, plan.b, plan.c});
#else
  plan.primitive = dnnl::matmul({dnnl::matmul::desc(plan.a, plan.b, plan.c), dnnl_engine()});
#endif
  return plan;
}

Tensor as_fp32(const Bf16Side& x, int64_t lines, int64_t depth) {
  int64_t rows = x.lines_are_rows ? lines : depth, cols = x.lines_are_rows ? depth : lines;
  Tensor y({rows, cols});
  float* to = y.data<float>();
  for (int64_t i = 0; i < rows; i++, to += cols) {
    const bf16* from = x.data + i * x.stride;
#pragma omp simd
    for (int64_t j = 0; j < cols; j++) to[j] = float(from[j]);
  }
  return y;
}

}  // namespace

bool onednn_has_bf16() {
  static const bool has = [] {
    bf16 one[1] = {};
    Bf16Side side{one, 1, true};
    try {
      make_plan({1, 1, 1, side, side, false, {}});
    } catch (const dnnl::error& error) {
      return false;
    }
    return true;
  }();
  return has;
}

void fp32_product(const Bf16Product& p) {
  Tensor left = as_fp32(p.left, p.m, p.k), right = as_fp32(p.right, p.n, p.k), sums({p.m, p.n});
  dnnl_status_t status =
      dnnl_sgemm(p.left.lines_are_rows ? 'N' : 'T', p.right.lines_are_rows ? 'T' : 'N', p.m, p.n,
                 p.k, 1, left.data<float>(), left.cols(), right.data<float>(), right.cols(), 0,
                 sums.data<float>(), p.n);
  check(status == dnnl_success,
        [&] { return "matmul: oneDNN status " + std::to_string(int(status)); });
  p.finish(0, p.m, sums.data<float>(), p.n);
}

void onednn_product(const Bf16Product& p) {
  // Per thread: a primitive plans for as many threads as it may use when it is made, here one.
  thread_local std::map<Key, Plan> plans;
  thread_local dnnl::stream stream(dnnl_engine());
  Key key{
      p.m, p.n, p.k, p.left.stride, p.left.lines_are_rows, p.right.stride, p.right.lines_are_rows};
  Tensor sums({p.m, p.n});
  try {
    auto it = plans.find(key);
    if (it == plans.end()) it = plans.emplace(key, make_plan(p)).first;
    Plan& plan = it->second;
    dnnl::memory a(plan.a, dnnl_engine(), const_cast<bf16*>(p.left.data)),
        b(plan.b, dnnl_engine(), const_cast<bf16*>(p.right.data)),
        c(plan.c, dnnl_engine(), sums.data<float>());
    plan.primitive.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
    stream.wait();
  } catch (const dnnl::error& e) {
    throw Error(std::string("matmul: oneDNN bf16: ") + e.message);
  }
  p.finish(0, p.m, sums.data<float>(), p.n);
}

Bf16Multiply& forced_bf16_product() {
  static Bf16Multiply forced = nullptr;
  return forced;
}

}  // namespace murmur
