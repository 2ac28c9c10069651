// tensor/cuda/matmul.cpp - matrix products through cuBLASLt.
//
// The library counts by columns: our row-major C = A B is its C^T = B^T A^T, so the operands change
// places and nothing is moved. fp32 products are true fp32 (no TF32); bf16 products sum in fp32.
// Which of the library's kernels runs is measured once per kind of product and then kept in a file
// (plans.h): a choice that changed between runs would change the bits.
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tensor/backend.h"
#include "tensor/cuda/plans.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/symmetric_hopper.h"
#include "tensor/ops/functions.h"
#include "tensor/elementwise.h"

namespace murmur::cuda {

// Everything the library is told about one product, in its terms: D (rows x cols) = first second.
struct Product {
  Tensor first, second;  // our b, our a
  bool transpose_first, transpose_second;
  int64_t rows, cols, inner, batch;
  Tensor out;   // D
  Tensor plus;  // C, of D's type; empty: none
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  Tensor bias, auxiliary;  // for the epilogues
  float alpha = 1, beta = 0;
  Tensor alpha_on_device;  // (1) fp32: then beta is 0 or 1
};

cudaDataType_t type_of(const Tensor& x) {
  return x.dtype() == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// Destroys what the library created.
template <class T, cublasStatus_t (*destroy)(T)>
struct Handle {
  T value = {};
  Handle() = default;
  Handle(const Handle&) = delete;
  ~Handle() { destroy(value); }
  operator T() const { return value; }
};
using Layout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Description = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Description& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_library(cublasLtMatmulDescSetAttribute(d, attribute, &value, sizeof(value)), "attribute");
}
template <class T>
void set(const Preference& p, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check_library(cublasLtMatmulPreferenceSetAttribute(p, attribute, &value, sizeof(value)),
                "preference");
}

void describe(Layout& layout, const Tensor& x, int64_t rows, int64_t cols, int64_t batch) {
  check_library(cublasLtMatrixLayoutCreate(&layout.value, type_of(x), uint64_t(rows),
                                           uint64_t(cols), x.row_stride()),
                "layout");
  if (batch == 1) return;
  int32_t count = int32_t(batch);
  int64_t stride = x.rows() / batch * x.row_stride();
  for (auto [attribute, data, size] :
       {std::tuple<cublasLtMatrixLayoutAttribute_t, void*, size_t>{
            CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)},
        {CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)}}) {
    check_library(cublasLtMatrixLayoutSetAttribute(layout, attribute, data, size), "batch");
  }
}

// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const Tensor& x) {
  if (!x) return 256;
  uintptr_t address = reinterpret_cast<uintptr_t>(x.raw());
  return uint32_t(std::min<uintptr_t>(256, address & (~address + 1)));
}

constexpr size_t kWorkspace = size_t(32) << 20;  // what NVIDIA advises for Hopper
void* workspace() {
  static Tensor* bytes = new Tensor({int64_t(kWorkspace / 4)}, DType::f32, Device::cuda);
  return bytes->raw();
}

const float* zero_and_one_on_device() {
  static Tensor* both = new Tensor(to(Device::cuda, Tensor::of({0, 1}, {2})));
  return both->data<float>();
}

// A product told to the library, ready to run with a given one of its kernels.
class Told {
 public:
  explicit Told(const Product& p) : p_(p) {
    auto operation = [](bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; };
    check_library(cublasLtMatmulDescCreate(&description_.value, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                  "description");
    set(description_, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_first));
    set(description_, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_second));
    set(description_, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
    if (p.alpha_on_device)
      set(description_, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
    if (p.bias) {
      set(description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias.raw());
      set(description_, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.bias));
    }
    if (p.auxiliary) {
      set(description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.auxiliary.raw());
      set(description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.auxiliary.row_stride());
    }
    bool t = p.transpose_first, u = p.transpose_second;
    describe(first_, p.first, t ? p.inner : p.rows, t ? p.rows : p.inner, p.batch);
    describe(second_, p.second, u ? p.cols : p.inner, u ? p.inner : p.cols, p.batch);
    describe(plus_, p.plus ? p.plus : p.out, p.rows, p.cols, p.batch);
    describe(out_, p.out, p.rows, p.cols, p.batch);
  }

  // The library's suggestions, best guess first. Sums that several blocks share are finished in a
  // fixed order: no kernel may add in place.
  std::vector<cublasLtMatmulHeuristicResult_t> candidates() const {
    Preference preference;
    check_library(cublasLtMatmulPreferenceCreate(&preference.value), "preference");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p_.first));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p_.second));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p_.plus));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p_.out));
    std::vector<cublasLtMatmulHeuristicResult_t> results(8);
    int found = 0;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library(), description_, first_, second_, plus_, out_,
                                       preference, int(results.size()), results.data(), &found);
    results.resize(status == CUBLAS_STATUS_SUCCESS ? size_t(found) : 0);
    return results;
  }

  cublasStatus_t run(const cublasLtMatmulAlgo_t& algorithm, const Tensor& out) const {
    const void *alpha = &p_.alpha, *beta = &p_.beta;
    if (p_.alpha_on_device) {
      alpha = p_.alpha_on_device.raw();
      beta = zero_and_one_on_device() + (p_.beta != 0);
    }
    counters().launches++;
    return cublasLtMatmul(library(), description_, alpha, p_.first.raw(), first_, p_.second.raw(),
                          second_, beta, (p_.plus ? p_.plus : out).raw(), plus_, out.raw(), out_,
                          &algorithm, workspace(), kWorkspace, stream());
  }

  // What the choice of a kernel may depend on, as one word.
  std::string key() const {
    std::string s;
    for (int64_t number :
         {p_.rows, p_.cols, p_.inner, p_.batch, int64_t(p_.transpose_first),
          int64_t(p_.transpose_second), int64_t(p_.first.dtype()), int64_t(p_.out.dtype()),
          int64_t(p_.epilogue), int64_t(p_.beta != 0), int64_t(bool(p_.alpha_on_device)),
          int64_t(bool(p_.plus)), p_.first.row_stride(), p_.second.row_stride(),
          p_.out.row_stride(), int64_t(alignment_of(p_.first)), int64_t(alignment_of(p_.second)),
          int64_t(alignment_of(p_.plus)), int64_t(alignment_of(p_.out))})
      s += (s.empty() ? "" : ",") + std::to_string(number);
    return s;
  }

 private:
  const Product& p_;
  Description description_;
  Layout first_, second_, plus_, out_;
};

// The plan for a product: from the table, or measured now. Nothing when the library has no kernel.
std::optional<Plan> plan_for(const Product& p, const Told& told) {
  std::string key = told.key();
  if (const Plan* known = plans().find(key)) return *known;
  // While timing, the result goes to a tensor of its own where the true one is also read.
  Tensor out = p.beta != 0 ? Tensor(p.out.shape(), p.out.dtype(), Device::cuda) : p.out;
  std::optional<Plan> best;
  for (const auto& candidate : told.candidates()) {
    bool works = true;
    float ms = time_on_stream(
        [&] { works = works && told.run(candidate.algo, out) == CUBLAS_STATUS_SUCCESS; });
    if (works && (!best || ms < best->ms)) best = Plan{candidate.algo, ms};
  }
  if (best) plans().keep(key, *best);
  return best;
}

bool run(const Product& p) {
  Told told(p);
  std::optional<Plan> plan = plan_for(p, told);
  if (!plan) return false;
  check_library(told.run(plan->algorithm, p.out), "cublasLtMatmul");
  return true;
}

// Whether the library's fused product beats its plain one and an elementwise kernel of ours.
bool fusing_wins(const Product& fused, const Product& plain, const std::function<void()>& finish) {
  Told told_fused(fused), told_plain(plain);
  std::string key = told_fused.key() + ",apart";  // time of the plain product and what follows it
  const Plan* apart = plans().find(key);
  if (!apart) {
    std::optional<Plan> plan = plan_for(plain, told_plain);
    if (!plan) return true;
    plan->ms += time_on_stream(finish);
    plans().keep(key, *plan);
    apart = plans().find(key);
  }
  float limit = apart->ms;
  std::optional<Plan> together = plan_for(fused, told_fused);
  return together && together->ms <= limit;
}

void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) {
  Tensor& out = c.tensor;
  bool batched = a.shape().rank() == 3 && b.shape().rank() == 3;
  Product p;
  p.batch = batched ? a.shape()[0] : 1;
  int64_t a_rows = a.rows() / p.batch, b_rows = b.rows() / p.batch;
  p.first = b;
  p.second = a;
  p.transpose_first = form.transpose_b;
  p.transpose_second = form.transpose_a;
  p.rows = form.transpose_b ? b_rows : b.cols();
  p.cols = form.transpose_a ? a.cols() : a_rows;
  p.inner = form.transpose_a ? a_rows : a.cols();
  check(p.inner == (form.transpose_b ? b.cols() : b_rows) && out.rows() / p.batch == p.cols &&
            out.cols() == p.rows && (!batched || b.shape()[0] == p.batch),
        "sizes do not fit; transpose a side?");
  check(a.dtype() == b.dtype() && a.dtype() != DType::f64 && a.dtype() != DType::i32 &&
            (out.dtype() == a.dtype() || out.dtype() == DType::f32),
        "no such combination of types on this device");
  check(!form.plus || !c.accumulate, "`plus` and accumulation together");
  if (out.numel() == 0) return;
  bool many_alphas = form.alpha.by && form.alpha.by.numel() > 1;
  if (p.inner == 0) {
    check(!form.plus && !form.bias, "an empty inner dimension with something to add");
    if (!c.accumulate) fill(out, 0);
    return;
  }
  if (hopper_wanted() && form.symmetric && a.raw() == b.raw() && !c.accumulate && !form.bias &&
      symmetric_product(a, form.transpose_a, form.alpha, form.plus, form.beta, out))
    return;

  p.out = out;
  p.alpha = float(form.alpha.value);
  p.plus = form.plus ? form.plus : c.accumulate ? out : Tensor();
  p.beta = form.plus ? float(form.beta) : c.accumulate ? 1.f : 0.f;
  if (form.alpha.by && !many_alphas) {
    check(!form.plus, "`plus` with a factor on the device");
    p.alpha_on_device = Tensor({1}, DType::f32, Device::cuda);
    scale(form.alpha.value, form.alpha.by.view({1}), {p.alpha_on_device});
  }
  if (form.bias) {
    // The library adds a bias of the result's type only.
    p.bias = form.bias;
    if (form.bias.dtype() != out.dtype()) {
      p.bias = Tensor(form.bias.shape(), out.dtype(), Device::cuda);
      backend(Device::cuda).copy(form.bias, p.bias);
    }
    p.epilogue = CUBLASLT_EPILOGUE_BIAS;
  }
  // GELU is the one function the library knows; it is fused where that was measured to be faster.
  Product fused = p;
  bool gelu = form.op == unary::gelu && a.dtype() == DType::bf16 && out.dtype() == DType::bf16 &&
              p.rows % 8 == 0 && !batched;
  if (form.activated && gelu) {
    fused.epilogue = form.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    fused.out = form.activated;
    fused.auxiliary = out;
  } else if (form.slope_at && gelu && !form.bias) {
    fused.epilogue = CUBLASLT_EPILOGUE_DGELU;
    fused.auxiliary = form.slope_at;
  }
  // The sums of dy's rows come out of the weight's gradient, where the library knows that.
  Tensor sums = form.sums;
  if (sums && form.transpose_a && !form.add_to_sums &&
      fused.epilogue == CUBLASLT_EPILOGUE_DEFAULT && sums.dtype() == out.dtype()) {
    fused.epilogue = CUBLASLT_EPILOGUE_BGRADB;
    fused.bias = sums;
  }
  auto finish = [&] {
    if (sums) sum_rows(a, {sums, form.add_to_sums});
    Tensor activated = form.activated;
    if (activated) map(form.op, out, activated);
    if (form.slope_at) map_backward(form.op, form.slope_at, out, {out});
  };
  if (fused.epilogue != p.epilogue && fusing_wins(fused, p, finish)) {
    check(run(fused), "cuBLASLt has lost the kernel of its plan");
    return;
  }
  check(run(p), "cuBLASLt has no kernel for this product");
  finish();
  if (many_alphas) {
    check(!p.plus, "factors on the device with something to add");
    scale({1, form.alpha.by}, out, {out});
  }
}

}  // namespace murmur::cuda
