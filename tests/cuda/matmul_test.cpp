// tests/cuda/matmul_test.cpp - products through the library against the CPU engine, in every form.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tensor/cuda/plans.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "tests/cuda/parity.h"

using namespace murmur;

namespace {

struct Case {
  int64_t m, n, k, batch;
};

Tensor operand(const Case& c, int64_t rows, int64_t cols, bool transposed, DType dtype,
               uint64_t seed) {
  if (transposed) std::swap(rows, cols);
  return random(c.batch ? Shape{c.batch, rows, cols} : Shape{rows, cols}, dtype, seed);
}

Shape result_shape(const Case& c) { return c.batch ? Shape{c.batch, c.m, c.n} : Shape{c.m, c.n}; }

// The same product on both engines; the CPU's in fp32 from the same rounded operands.
double product_error(const Case& c, DType in, DType out, MatmulForm form, bool accumulate) {
  Tensor a = operand(c, c.m, c.k, form.transpose_a, in, 1),
         b = operand(c, c.k, c.n, form.transpose_b, in, 2), start = random(result_shape(c), out, 3);
  auto wide = [](const Tensor& x) {
    if (!x) return x;
    Tensor y(x.shape(), DType::f32);
    ops::copy(x, y);
    return y;
  };
  MatmulForm on_cpu = form, on_cuda = form;
  on_cpu.plus = wide(form.plus);
  on_cuda.plus = on_gpu(form.plus);
  on_cuda.bias = on_gpu(form.bias);
  on_cuda.alpha.by = on_gpu(form.alpha.by);
  Tensor want = wide(start);
  ops::matmul(wide(a), wide(b), {want, accumulate}, on_cpu);
  Tensor got = accumulate ? on_gpu(start) : poisoned(result_shape(c), out);
  ops::matmul(on_gpu(a), on_gpu(b), {got, accumulate}, on_cuda);
  return relative_error(got, want);
}

const Case kCases[] = {{1, 1, 1, 0},    {3, 5, 7, 0},    {33, 17, 65, 0}, {64, 96, 32, 0},
                       {130, 8, 24, 0}, {7, 300, 20, 0}, {16, 24, 40, 3}, {5, 5, 9, 2}};

}  // namespace

TEST_CASE("products: every transposition, type, accumulation and bias, odd sizes, banks") {
  for (const Case& c : kCases) {
    for (auto [in, out] : {std::pair{DType::f32, DType::f32},
                           {DType::bf16, DType::bf16},
                           {DType::bf16, DType::f32}}) {
      for (int bits = 0; bits < 8; bits++) {
        MatmulForm form{.transpose_a = bool(bits & 1), .transpose_b = bool(bits & 2), .alpha = 0.5};
        if (bits == 2 && !c.batch) form.bias = random({c.n}, DType::f32, 9);
        CAPTURE(c.m);
        CAPTURE(c.n);
        CAPTURE(c.batch);
        CAPTURE(bits);
        CHECK(product_error(c, in, out, form, bits & 4) < (out == DType::bf16  ? 1e-2
                                                           : in == DType::bf16 ? 1e-3
                                                                               : 1e-5));
      }
    }
  }
}

TEST_CASE("products with something added, and with factors that lie on the device") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Case bank{24, 16, 16, 3};
    MatmulForm form{.alpha = 2, .plus = random(result_shape(bank), dtype, 5), .beta = -0.5};
    CHECK(product_error(bank, dtype, dtype, form, false) < tolerance(dtype));
    MatmulForm scaled{.alpha = {2, Tensor::of({0.5, 3, -1}, {3})}};
    CHECK(product_error(bank, dtype, dtype, scaled, false) < tolerance(dtype));
    for (bool accumulate : {false, true}) {
      MatmulForm one{.transpose_a = true, .alpha = {0.25, Tensor::of({3}, {})}};
      CHECK(product_error({20, 32, 40, 0}, dtype, DType::f32, one, accumulate) < 1e-3);
    }
  }
}

TEST_CASE("a symmetric product is the whole of it") {
  for (bool tall : {false, true}) {
    Tensor x = random(tall ? Shape{2, 40, 24} : Shape{2, 24, 40}, DType::bf16, 1),
           want({2, 24, 24}), wide(x.shape()), factor = Tensor::of({0.1, 0.2}, {2});
    ops::copy(x, wide);
    MatmulForm form{.transpose_a = tall, .transpose_b = !tall, .alpha = {1, factor}};
    ops::matmul(wide, wide, {want}, form);
    form.symmetric = true;
    form.alpha.by = on_gpu(factor);
    Tensor got = poisoned(want.shape(), DType::bf16), device = on_gpu(x);
    ops::matmul(device, device, {got}, form);
    CHECK(relative_error(got, want) < 1e-2);
  }
}

TEST_CASE("what follows a product: activations and their slopes, known to the library or not") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (Unary op : {unary::gelu, unary::relu2}) {
      for (int64_t n : {32, 20}) {
        for (bool with_bias : {false, true}) {
          Tensor a = random({48, 24}, dtype, 1), b = random({n, 24}, dtype, 2, 0.3),
                 bias = with_bias ? random({n}, DType::f32, 3) : Tensor();
          Tensor c({48, n}, dtype), h(c.shape(), dtype), slope({48, n}, dtype),
              u = random(c.shape(), dtype, 4);
          ops::matmul(a, b, {c}, {.transpose_b = true, .bias = bias, .op = op, .activated = h});
          ops::matmul(a, b, {slope}, {.transpose_b = true, .op = op, .slope_at = u});
          Tensor c2 = poisoned(c.shape(), dtype), h2 = poisoned(c.shape(), dtype),
                 slope2 = poisoned(c.shape(), dtype);
          for (int again = 0; again < 2; again++) {  // with the plan measured, and with it known
            ops::matmul(on_gpu(a), on_gpu(b), {c2},
                        {.transpose_b = true, .bias = on_gpu(bias), .op = op, .activated = h2});
            ops::matmul(on_gpu(a), on_gpu(b), {slope2},
                        {.transpose_b = true, .op = op, .slope_at = on_gpu(u)});
            CHECK(relative_error(c2, c) < tolerance(dtype));
            CHECK(relative_error(h2, h) < tolerance(dtype));
            CHECK(relative_error(slope2, slope) < tolerance(dtype));
          }
        }
      }
    }
  }
}

TEST_CASE("a weight's gradient and its bias's in one product") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (bool accumulate : {false, true}) {
      Tensor dy = random({70, 24}, dtype, 1), x = random({70, 16}, dtype, 2),
             dw = random({24, 16}, DType::f32, 3), db = random({24}, DType::f32, 4);
      Tensor dw2 = on_gpu(dw), db2 = on_gpu(db);
      for (int again = 0; again < 2; again++) {
        ops::matmul(dy, x, {dw, accumulate},
                    {.transpose_a = true, .sums = db, .add_to_sums = accumulate});
        ops::matmul(on_gpu(dy), on_gpu(x), {dw2, accumulate},
                    {.transpose_a = true, .sums = db2, .add_to_sums = accumulate});
        CHECK(relative_error(dw2, dw) < 1e-5);
        CHECK(relative_error(db2, db) < 1e-5);
      }
    }
  }
}

TEST_CASE("products of slices: rows apart, and an empty inner dimension") {
  Tensor a = random({10, 64}, DType::bf16, 1), b = random({12, 64}, DType::bf16, 2), want({10, 12}),
         got = poisoned({10, 12}, DType::f32);
  ops::matmul(a.columns(8, 40), b.columns(16, 48), {want}, {.transpose_b = true});
  ops::matmul(on_gpu(a).columns(8, 40), on_gpu(b).columns(16, 48), {got}, {.transpose_b = true});
  CHECK(relative_error(got, want) < 1e-3);
  Tensor none_a = on_gpu(Tensor({4, 0})), none_b = on_gpu(Tensor({0, 3})),
         zero = poisoned({4, 3}, DType::f32);
  ops::matmul(none_a, none_b, {zero}, {});
  CHECK(to_vector(zero) == std::vector<double>(12, 0));
}

TEST_CASE("products that do not fit are refused with their shapes") {
  Tensor a = on_gpu(random({4, 5}, DType::f32, 1)), b = on_gpu(random({4, 5}, DType::f32, 2)),
         c = on_gpu(random({4, 4}, DType::f32, 3));
  CHECK_THROWS_AS(ops::matmul(a, b, {c}, {}), Error);
  Tensor half = on_gpu(random({4, 5}, DType::bf16, 2));
  CHECK_THROWS_AS(ops::matmul(a, half, {c}, {.transpose_b = true}), Error);
}

TEST_CASE("a table of plans survives its file; a line that is damaged is measured again") {
  auto path = std::filesystem::temp_directory_path() / "murmur-plans-test" / "products.txt";
  std::filesystem::remove_all(path.parent_path());
  cuda::Plan plan{};
  for (uint64_t i = 0; i < 8; i++) plan.algorithm.data[i] = i << 60 | 0x1234567890abcdefu >> i;
  plan.ms = 0.25f;
  {
    cuda::Plans plans(path.string());
    CHECK(plans.find("1,2") == nullptr);
    plans.keep("1,2", plan);
    plans.keep("3,4", plan);
    cuda::Plan untimed = plan;
    untimed.ms = 0;
    plans.keep("7,8", untimed);
    CHECK(plans.find("7,8"));  // for this run, but not for later ones
  }
  std::ofstream(path, std::ios::app) << "5,6 0.5 12,34\n";
  cuda::Plans plans(path.string());
  CHECK(plans.all().size() == 2);
  REQUIRE(plans.find("3,4"));
  CHECK(plans.find("3,4")->ms == 0.25f);
  CHECK(std::memcmp(&plans.find("3,4")->algorithm, &plan.algorithm, sizeof(plan.algorithm)) == 0);
  std::filesystem::remove_all(path.parent_path());
}
