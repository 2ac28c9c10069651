// tests/cuda_on_cpu/cublasLt.cpp - checks what is asked, multiplies, does the epilogue.
#include "cublasLt.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <vector>

#include "cuda_on_cpu.h"
#include "queue.h"
#include "tensor/dtype.h"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  int32_t compute = CUBLAS_COMPUTE_32F, scale = CUDA_R_32F;
  int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  int64_t bias_stride = 0;
  void* auxiliary = nullptr;
  int64_t auxiliary_ld = 0, auxiliary_stride = 0;
  int64_t alpha_stride = 0;
  int32_t multiprocessors = 0;
  int32_t auxiliary_type = -1, bias_type = -1;  // -1: as D
};
struct cublasLtMatrixLayoutOpaque_t {
  int32_t type;
  int32_t order = CUBLASLT_ORDER_COL;
  uint64_t rows, cols;
  int64_t ld;
  int32_t batch = 1;
  int64_t stride = 0;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace = 0;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
};

namespace cuda_on_cpu {
namespace {

using Description = cublasLtMatmulDescOpaque_t;
using Layout = cublasLtMatrixLayoutOpaque_t;
using murmur::bf16;

constexpr uint64_t magic = 0x6d75726d7572;  // marks an algorithm of ours
constexpr uint64_t algorithms = 3;

template <class T>
cublasStatus_t set(T& field, const void* value, size_t bytes) {
  if (!value || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

// f is called with a number of the type.
template <class F>
void with_type(int32_t type, const F& f) {
  type == CUDA_R_32F ? f(float{}) : f(bf16{});
}
bool known(int32_t type) { return type == CUDA_R_32F || type == CUDA_R_16BF; }

struct Gemm {
  Description how;
  Layout a, b, c, d;
  const void *a_data = nullptr, *b_data = nullptr, *c_data = nullptr;
  void* d_data = nullptr;
  float alpha = 0, beta = 0;  // where they come from the host
  const float *alpha_data = nullptr, *beta_data = nullptr;
  uint64_t parts = 1;  // of the inner dimension, summed one after another

  bool has(uint32_t bit) const { return how.epilogue & bit; }
  int64_t m() const { return int64_t(d.rows); }
  int64_t n() const { return int64_t(d.cols); }
  int64_t k() const { return int64_t(how.transpose_a ? a.rows : a.cols); }
  int32_t bias_type() const { return how.bias_type == -1 ? d.type : how.bias_type; }
  int32_t auxiliary_type() const { return how.auxiliary_type == -1 ? d.type : how.auxiliary_type; }
  size_t workspace() const {
    return parts == 1 ? 0 : parts * d.rows * d.cols * size_t(d.batch) * 4;
  }

  cublasStatus_t check() const;
  void run() const;

 private:
  void run_one(int64_t batch) const;
};

// What the documentation demands. Invalid: contradictory; not supported: no kernel for it.
cublasStatus_t Gemm::check() const {
  for (const Layout* x : {&a, &b, &c, &d}) {
    if (x->rows == 0 || x->cols == 0 || x->ld < int64_t(x->rows) || x->batch != d.batch) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (x->order != CUBLASLT_ORDER_COL || !known(x->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const uint64_t inner_b = how.transpose_b ? b.cols : b.rows;
  if ((how.transpose_a ? a.cols : a.rows) != d.rows ||
      (how.transpose_b ? b.rows : b.cols) != d.cols || inner_b != uint64_t(k()) ||
      c.rows != d.rows || c.cols != d.cols) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F) ||
      how.scale != CUDA_R_32F || how.compute < CUBLAS_COMPUTE_32F ||
      how.compute == CUBLAS_COMPUTE_64F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  constexpr uint32_t bias_bits =
      CUBLASLT_EPILOGUE_BIAS | 16 | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB;
  if (has(bias_bits)) {
    if (!how.bias) return CUBLAS_STATUS_INVALID_VALUE;
    if (bias_type() != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;  // outside fp8 it is D's
  }
  if (has(128)) {
    if (!how.auxiliary || how.auxiliary_ld < m() || how.auxiliary_ld % 8) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (auxiliary_type() != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (how.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE_VECTOR) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (how.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO && how.alpha_stride) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

constexpr int64_t tile_rows = 16, tile_cols = 4;
using Vector = float __attribute__((vector_size(32)));

// op(x) as panels: `width` outer indices side by side for every inner index, zeros behind the end.
std::vector<float> pack(const Layout& x, const void* data, bool outer_is_row, int64_t outer,
                        int64_t inner, int64_t width) {
  std::vector<float> panels(size_t((outer + width - 1) / width * width * inner));
  const int64_t outer_step = outer_is_row ? 1 : x.ld, inner_step = outer_is_row ? x.ld : 1;
  with_type(x.type, [&](auto type) {
    const auto* from = static_cast<const decltype(type)*>(data);
    for (int64_t i = 0; i < outer; i++) {
      float* to = panels.data() + i / width * width * inner + i % width;
      for (int64_t l = 0; l < inner; l++)
        to[l * width] = float(from[i * outer_step + l * inner_step]);
    }
  });
  return panels;
}

// A 16 x 4 tile of the product, inner indices [first, last).
void multiply(const float* a, const float* b, int64_t first, int64_t last,
              float (&tile)[tile_cols][tile_rows]) {
  Vector sums[tile_cols][2] = {};
  for (int64_t l = first; l < last; l++) {
    Vector low, high;
    std::memcpy(&low, a + l * tile_rows, 32);
    std::memcpy(&high, a + l * tile_rows + 8, 32);
    for (int64_t j = 0; j < tile_cols; j++) {
      sums[j][0] += low * b[l * tile_cols + j];
      sums[j][1] += high * b[l * tile_cols + j];
    }
  }
  std::memcpy(tile, sums, sizeof tile);
}

constexpr float gelu_scale = 0.7978845608028654f, gelu_cube = 0.044715f;
float gelu(float x) { return x / 2 * (1 + std::tanh(gelu_scale * (x + gelu_cube * x * x * x))); }
float gelu_slope(float x) {
  float t = std::tanh(gelu_scale * (x + gelu_cube * x * x * x));
  return (1 + t) / 2 + x / 2 * (1 - t * t) * gelu_scale * (1 + 3 * gelu_cube * x * x);
}

void Gemm::run() const {
  for (int64_t batch = 0; batch < d.batch; batch++) run_one(batch);
}

void Gemm::run_one(int64_t batch) const {
  with_type(a.type, [&](auto in) {
    with_type(d.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      const In* a_from = static_cast<const In*>(a_data) + batch * a.stride;
      const In* b_from = static_cast<const In*>(b_data) + batch * b.stride;
      const Out* c_from = static_cast<const Out*>(c_data) + batch * c.stride;
      Out* to = static_cast<Out*>(d_data) + batch * d.stride;
      Out* bias = static_cast<Out*>(how.bias) + batch * how.bias_stride;
      Out* auxiliary = static_cast<Out*>(how.auxiliary) + batch * how.auxiliary_stride;
      const int64_t rows = m(), cols = n(), inner = k();

      const bool vector = how.pointer_mode >= CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO;
      const float b1 = beta_data ? *beta_data : beta;
      std::vector<float> panels_a = pack(a, a_from, !how.transpose_a, rows, inner, tile_rows);
      std::vector<float> panels_b = pack(b, b_from, how.transpose_b, cols, inner, tile_cols);
      std::vector<float> gradient(size_t(has(16) ? rows : 0));

      for (int64_t j0 = 0; j0 < cols; j0 += tile_cols) {
        for (int64_t i0 = 0; i0 < rows; i0 += tile_rows) {
          float sums[tile_cols][tile_rows] = {}, tile[tile_cols][tile_rows];
          for (uint64_t part = 0; part < parts; part++) {
            multiply(&panels_a[size_t(i0 * inner)], &panels_b[size_t(j0 * inner)],
                     inner * int64_t(part) / int64_t(parts),
                     inner * int64_t(part + 1) / int64_t(parts), tile);
            for (int64_t j = 0; j < tile_cols; j++) {
              for (int64_t i = 0; i < tile_rows; i++) sums[j][i] += tile[j][i];
            }
          }
          for (int64_t j = j0; j < std::min(cols, j0 + tile_cols); j++) {
            for (int64_t i = i0; i < std::min(rows, i0 + tile_rows); i++) {
              const float a1 = vector       ? alpha_data[batch * how.alpha_stride + i]
                               : alpha_data ? *alpha_data
                                            : alpha;
              float x = a1 * sums[j - j0][i - i0];
              if (b1 != 0) x += b1 * float(c_from[i + j * c.ld]);
              if (has(CUBLASLT_EPILOGUE_BIAS)) x += float(bias[i]);
              if (has(CUBLASLT_EPILOGUE_GELU)) {
                if (has(128)) auxiliary[i + j * how.auxiliary_ld] = Out(x);
                x = gelu(x);
              } else if (has(128)) {
                x *= gelu_slope(float(auxiliary[i + j * how.auxiliary_ld]));
              }
              if (has(16)) gradient[size_t(i)] += x;
              to[i + j * d.ld] = Out(x);
            }
          }
        }
      }
      for (size_t i = 0; i < gradient.size(); i++) bias[i] = Out(gradient[i]);
      auto sum_inner = [&](const std::vector<float>& panels, int64_t outer, int64_t width) {
        for (int64_t i = 0; i < outer; i++) {
          float sum = 0;
          for (int64_t l = 0; l < inner; l++) {
            sum += panels[size_t(i / width * width * inner + l * width + i % width)];
          }
          bias[i] = Out(sum);
        }
      };
      if (has(CUBLASLT_EPILOGUE_BGRADA)) sum_inner(panels_a, rows, tile_rows);
      if (has(CUBLASLT_EPILOGUE_BGRADB)) sum_inner(panels_b, cols, tile_cols);
    });
  });
}

std::mutex log_mutex;

}  // namespace
}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "another cublasStatus_t";
  }
}
const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality requested is not supported";
    default:
      return cublasGetStatusName(status);
  }
}
const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasGetStatusName(status); }
const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasGetStatusString(status); }
size_t cublasLtGetVersion() { return 130100; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute, cudaDataType_t scale) {
  *description = new cublasLtMatmulDescOpaque_t;
  (*description)->compute = compute;
  (*description)->scale = scale;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t x,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return set(x->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return set(x->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set(x->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(x->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(x->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(x->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(x->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
      return set(x->bias_stride, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return set(x->auxiliary, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return set(x->auxiliary_ld, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
      return set(x->auxiliary_stride, value, bytes);
    case CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE:
      return set(x->alpha_stride, value, bytes);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
      return set(x->multiprocessors, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      return set(x->auxiliary_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(x->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = new cublasLtMatrixLayoutOpaque_t{.type = type, .rows = rows, .cols = cols, .ld = ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t x,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return set(x->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(x->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return set(x->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return set(x->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set(x->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return set(x->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return set(x->stride, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  uint32_t alignment;
  float waves;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(preference->schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(alignment, value, bytes);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT:
      return set(waves, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  *found = 0;
  Gemm gemm = {*description, *a, *b, *c, *d};
  cublasStatus_t status = gemm.check();
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  for (gemm.parts = 1; gemm.parts <= algorithms && *found < wanted; gemm.parts++) {
    if (gemm.parts > 1 && (gemm.workspace() > preference->workspace ||
                           !(preference->schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE))) {
      break;
    }
    cublasLtMatmulHeuristicResult_t& result = results[(*found)++];
    result = {};
    result.algo.data[0] = magic;
    result.algo.data[1] = gemm.parts;
    result.workspaceSize = gemm.workspace();
    result.wavesCount = 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
  Gemm gemm = {*description, *a, *b, *c, *d};
  cublasStatus_t status = gemm.check();
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algo->data[0] != magic || algo->data[1] < 1 || algo->data[1] > algorithms) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  gemm.parts = algo->data[1];
  *result = {};
  result->algo = *algo;
  result->workspaceSize = gemm.workspace();
  result->wavesCount = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                              const void* alpha, const void* a_data, cublasLtMatrixLayout_t a,
                              const void* b_data, cublasLtMatrixLayout_t b, const void* beta,
                              const void* c_data, cublasLtMatrixLayout_t c, void* d_data,
                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!description || !a || !b || !c || !d || !alpha || !beta || !a_data || !b_data || !d_data) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Gemm gemm = {*description, *a, *b, *c, *d, a_data, b_data, c_data, d_data};
  cublasStatus_t status = gemm.check();
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algo) {
    cublasLtMatmulHeuristicResult_t checked;
    status = cublasLtMatmulAlgoCheck(handle, description, a, b, c, d, algo, &checked);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (checked.workspaceSize > workspace_bytes || (checked.workspaceSize && !workspace)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    gemm.parts = algo->data[1];
  }
  switch (gemm.how.pointer_mode) {
    case CUBLASLT_POINTER_MODE_HOST:
      std::memcpy(&gemm.alpha, alpha, 4);
      std::memcpy(&gemm.beta, beta, 4);
      break;
    case CUBLASLT_POINTER_MODE_DEVICE:
      gemm.alpha_data = static_cast<const float*>(alpha);
      gemm.beta_data = static_cast<const float*>(beta);
      break;
    case CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST:
      std::memcpy(&gemm.beta, beta, 4);
      [[fallthrough]];
    default:
      gemm.alpha_data = static_cast<const float*>(alpha);
  }
  const bool reads_c = gemm.beta_data || gemm.beta != 0;
  const bool in_place_differs = c_data == d_data && (c->ld != d->ld || c->stride != d->stride);
  if (reads_c && (!c_data || in_place_differs)) return CUBLAS_STATUS_INVALID_VALUE;

  cudaError_t queued = enqueue(stream, [gemm, workspace] {
    if (is_dry()) {
      std::lock_guard lock(log_mutex);
      product_log().push_back({gemm.m(), gemm.n(), gemm.k(), gemm.d.batch, gemm.a.type, gemm.b.type,
                               gemm.c.type, gemm.d.type, int(gemm.how.epilogue)});
      return;
    }
    if (gemm.workspace()) std::memset(workspace, 0xff, gemm.workspace());  // it is ours to spoil
    gemm.run();
  });
  return queued == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
