// tests/cuda/library_emulation_test.cpp - the emulated cuBLASLt and CUB against plain loops.
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cub/cub.cuh>
#include <utility>
#include <vector>

#include "tensor/dtype.h"
#include "tests/cuda/on_device.h"

namespace murmur {
namespace {

struct Product {
  int64_t m = 37, n = 21, k = 29, batch = 1;
  bool transpose_a = false, transpose_b = false;
  cudaDataType in = CUDA_R_32F, out = CUDA_R_32F;
  float alpha = 1, beta = 0;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  cublasLtPointerMode_t mode = CUBLASLT_POINTER_MODE_HOST;
  bool in_place = false;
  int64_t short_ld = 0;  // subtracted from A's
  int32_t bias_type = -1;
};

// A matrix of numbers as double, as the device holds them, and its layout.
class Matrix {
 public:
  Matrix(cudaDataType type, int64_t rows, int64_t cols, int64_t batch, int seed, int64_t pad = 3,
         int64_t less = 0)
      : type_(type),
        ld((rows + pad + 7) / 8 * 8),
        stride(ld * cols + 5),
        values(size_t(stride * batch)) {
    for (size_t i = 0; i < values.size(); i++) {
      values[i] = round(std::sin(double(i) * 0.73 + seed));
    }
    if (type == CUDA_R_32F) {
      upload<float>();
    } else {
      upload<bf16>();
    }
    cublasLtMatrixLayoutCreate(&layout, type, uint64_t(rows), uint64_t(cols),
                               less ? rows - less : ld);
    int32_t count = int32_t(batch);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, 4);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                     8);
  }
  Matrix(const Matrix&) = delete;
  ~Matrix() { cudaFree(data), cublasLtMatrixLayoutDestroy(layout); }
  double round(double x) const { return type_ == CUDA_R_32F ? float(x) : float(bf16(float(x))); }
  double& at(int64_t b, int64_t i, int64_t j) { return values[size_t(b * stride + j * ld + i)]; }
  double distance() {  // the largest difference between the device's numbers and `values`
    return type_ == CUDA_R_32F ? compare<float>() : compare<bf16>();
  }

 private:
  cudaDataType type_;

 public:
  int64_t ld, stride;
  std::vector<double> values;
  void* data = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;

 private:
  template <class T>
  void upload() {
    std::vector<T> numbers(values.size());
    for (size_t i = 0; i < values.size(); i++) numbers[i] = T(float(values[i]));
    cudaMalloc(&data, values.size() * sizeof(T));
    cudaMemcpy(data, numbers.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  }
  template <class T>
  double compare() {
    std::vector<T> numbers(values.size());
    cudaMemcpy(numbers.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost);
    double worst = 0;
    for (size_t i = 0; i < values.size(); i++) {
      worst = std::max(worst, std::abs(double(float(numbers[i])) - values[i]));
    }
    return worst;
  }
};

template <class T>
void set(cublasLtMatmulDesc_t x, cublasLtMatmulDescAttributes_t attribute, T value) {
  REQUIRE(cublasLtMatmulDescSetAttribute(x, attribute, &value, sizeof value) ==
          CUBLAS_STATUS_SUCCESS);
}

// Runs a product with one of the library's algorithms and compares everything it may write with
// plain loops. The largest difference goes to `error`.
cublasStatus_t multiply(const Product& p, double& error, int algorithm = 0) {
  cublasLtHandle_t handle;
  cublasLtCreate(&handle);
  Matrix a(p.in, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.batch, 1, 3, p.short_ld);
  Matrix b(p.in, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.batch, 2);
  Matrix c(p.out, p.m, p.n, p.batch, 3), d(p.out, p.m, p.n, p.batch, 3, p.in_place ? 3 : 12);
  Matrix aux(p.out, p.m, p.n, p.batch, 4), bias(p.out, std::max(p.m, p.n), 1, p.batch, 5);
  std::vector<float> alphas(size_t(p.m * p.batch), p.alpha);
  const bool per_row = p.mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST;
  for (size_t i = 0; per_row && i < alphas.size(); i++) alphas[i] = p.alpha + float(i);
  OnDevice<float> alpha_data(alphas), beta_data(std::vector<float>{p.beta});

  cublasLtMatmulDesc_t how;
  cublasLtMatmulDescCreate(&how, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  set(how, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(how, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(how, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
  set(how, CUBLASLT_MATMUL_DESC_POINTER_MODE, p.mode);
  set(how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.data);
  set(how, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, bias.stride);
  set(how, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.bias_type);
  set(how, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux.data);
  set(how, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, aux.ld);
  set(how, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, aux.stride);
  if (per_row) set(how, CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE, p.m);

  cublasLtMatmulPreference_t preference;
  cublasLtMatmulPreferenceCreate(&preference);
  const size_t workspace_bytes = 1 << 20;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace_bytes, sizeof workspace_bytes);
  OnDevice<char> workspace(workspace_bytes);
  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  Matrix& to = p.in_place ? c : d;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, how, a.layout, b.layout, c.layout,
                                                         to.layout, preference, 8, found, &count);
  if (status == CUBLAS_STATUS_SUCCESS) {
    REQUIRE(count == 3);
    const bool on_device = p.mode == CUBLASLT_POINTER_MODE_DEVICE;
    const void* alpha = on_device || per_row ? static_cast<const void*>(alpha_data) : &p.alpha;
    const void* beta = on_device ? static_cast<const void*>(beta_data) : &p.beta;
    status = cublasLtMatmul(handle, how, alpha, a.data, a.layout, b.data, b.layout, beta, c.data,
                            c.layout, to.data, to.layout, &found[algorithm].algo, workspace,
                            workspace_bytes, nullptr);
  }
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatmulDescDestroy(how);
  cublasLtDestroy(handle);
  if (status != CUBLAS_STATUS_SUCCESS) return status;

  auto has = [&](int bit) { return (int(p.epilogue) & bit) != 0; };
  auto inner = [](double x) { return std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); };
  auto gelu = [&](double x) { return x / 2 * (1 + std::tanh(inner(x))); };
  for (int64_t l = 0; l < p.batch; l++) {
    std::vector<double> row_sums(size_t(p.m));
    for (int64_t j = 0; j < p.n; j++) {
      for (int64_t i = 0; i < p.m; i++) {
        double x = 0;
        for (int64_t q = 0; q < p.k; q++) {
          x += (p.transpose_a ? a.at(l, q, i) : a.at(l, i, q)) *
               (p.transpose_b ? b.at(l, j, q) : b.at(l, q, j));
        }
        x = double(alphas[size_t(l * p.m + i)]) * x + double(p.beta) * c.at(l, i, j);
        if (has(4)) x += bias.at(l, i, 0);
        if (has(32)) {
          if (has(128)) aux.at(l, i, j) = aux.round(x);
          x = gelu(x);
        } else if (has(128)) {
          const double at = aux.at(l, i, j), step = 1e-5;
          x *= (gelu(at + step) - gelu(at - step)) / (2 * step);
        }
        row_sums[size_t(i)] += x;
        to.at(l, i, j) = to.round(x);
      }
    }
    for (int64_t i = 0; has(16) && i < p.m; i++) bias.at(l, i, 0) = bias.round(row_sums[size_t(i)]);
    for (int64_t i = 0; has(256 | 512) && i < (has(256) ? p.m : p.n); i++) {
      double sum = 0;
      for (int64_t q = 0; q < p.k; q++) {
        sum += has(256) ? (p.transpose_a ? a.at(l, q, i) : a.at(l, i, q))
                        : (p.transpose_b ? b.at(l, i, q) : b.at(l, q, i));
      }
      bias.at(l, i, 0) = bias.round(sum);
    }
  }
  error = std::max(
      {a.distance(), b.distance(), c.distance(), d.distance(), aux.distance(), bias.distance()});
  return status;
}

TEST_CASE("cublasLt multiplies by columns, as its documentation says") {
  auto check = [](const Product& p, double tolerance) {
    for (int algorithm = 0; algorithm < 3; algorithm++) {
      double error = NAN;
      REQUIRE(multiply(p, error, algorithm) == CUBLAS_STATUS_SUCCESS);
      CHECK(error < tolerance);
    }
  };
  for (int i = 0; i < 4; i++) {
    for (int64_t batch : {1, 3}) {
      for (cudaDataType in : {CUDA_R_32F, CUDA_R_16BF}) {
        for (cudaDataType out : {CUDA_R_32F, CUDA_R_16BF}) {
          if (in == CUDA_R_32F && out != CUDA_R_32F) continue;
          Product p;
          p.transpose_a = i % 2, p.transpose_b = i / 2;
          p.batch = batch, p.in = in, p.out = out;
          p.alpha = 0.5f, p.beta = batch == 1 ? 0 : -2;
          check(p, out == CUDA_R_32F ? 2e-5 : 0.1);
        }
      }
    }
  }
  for (cublasLtEpilogue_t epilogue :
       {CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS,
        CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
        CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA, CUBLASLT_EPILOGUE_BGRADB}) {
    CAPTURE(int(epilogue));
    Product p;
    p.epilogue = epilogue, p.batch = 2, p.transpose_a = true;
    check(p, 5e-5);
    p.in = p.out = CUDA_R_16BF;
    check(p, 0.3);
  }
  for (cublasLtPointerMode_t mode :
       {CUBLASLT_POINTER_MODE_DEVICE, CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST}) {
    Product p;
    p.mode = mode, p.alpha = 0.25f, p.beta = 1, p.batch = 2;
    check(p, 1e-3);
  }
}

TEST_CASE("cublasLt refuses what does not fit together") {
  double error;
  Product in_place;
  in_place.in_place = true;
  CHECK(multiply(in_place, error) == CUBLAS_STATUS_SUCCESS);
  Product short_rows;
  short_rows.short_ld = 1;
  CHECK(multiply(short_rows, error) == CUBLAS_STATUS_INVALID_VALUE);
  Product half;
  half.in = CUDA_R_32F, half.out = CUDA_R_16BF;
  CHECK(multiply(half, error) == CUBLAS_STATUS_NOT_SUPPORTED);
  Product bias;  // its type is the result's
  bias.in = bias.out = CUDA_R_16BF, bias.epilogue = CUBLASLT_EPILOGUE_BIAS;
  bias.bias_type = CUDA_R_32F;
  CHECK(multiply(bias, error) == CUBLAS_STATUS_NOT_SUPPORTED);
}

TEST_CASE("pairs are sorted by some bits of their keys, and equal keys keep their order") {
  std::vector<int> keys(1000), values(1000);
  for (int i = 0; i < 1000; i++) keys[size_t(i)] = i * 7919 % 257 - 100, values[size_t(i)] = i;
  OnDevice<int> k(keys), v(values), sorted_k(1000), sorted_v(1000);
  for (auto [begin, end] : {std::pair{0, 32}, {0, 5}, {3, 9}}) {
    size_t bytes = 0;
    using Sort = cub::DeviceRadixSort;
    REQUIRE(Sort::SortPairs(nullptr, bytes, static_cast<int*>(k), static_cast<int*>(sorted_k),
                            static_cast<int*>(v), static_cast<int*>(sorted_v), 1000, begin,
                            end) == cudaSuccess);
    OnDevice<char> storage(bytes);
    REQUIRE(Sort::SortPairs(storage, bytes, static_cast<int*>(k), static_cast<int*>(sorted_k),
                            static_cast<int*>(v), static_cast<int*>(sorted_v), 1000, begin,
                            end) == cudaSuccess);
    std::vector<int> want = values;
    std::stable_sort(want.begin(), want.end(), [&](int a, int b) {
      auto digits = [&](int i) {
        uint32_t bits = uint32_t(keys[size_t(i)]) ^ 0x80000000u;
        return end - begin == 32 ? bits : bits >> begin & ((1u << (end - begin)) - 1);
      };
      return digits(a) < digits(b);
    });
    CHECK(sorted_v.fetch() == want);
    CHECK(sorted_k.fetch()[500] == keys[size_t(want[500])]);
  }
}

TEST_CASE("in dry mode products are written down") {
  auto& products = cuda_on_cpu::product_log();
  products.clear();
  Product p;
  p.batch = 2, p.transpose_b = true;
  double error;
  const bool dry = cuda_on_cpu::set_dry(true);
  CHECK(multiply(p, error) == CUBLAS_STATUS_SUCCESS);
  cuda_on_cpu::set_dry(dry);
  REQUIRE(products.size() == 1);
  CHECK(products[0].m == p.m);
  CHECK(products[0].n == p.n);
  CHECK(products[0].k == p.k);
  CHECK(products[0].batch == 2);
}

}  // namespace
}  // namespace murmur
