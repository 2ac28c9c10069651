// tests/optim/orthogonalize_test.cpp - what every orthogonaliser of the list does to singular
// values, directions, banks, and matrices at the ends of what numbers hold.
#include "optim/orthogonalize.h"

#include <algorithm>

#include "optim/orthogonalizers.h"
#include "optim/svd.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

namespace {

template <class Test>
void for_each_method(Test test) {
  for (const Orthogonalizer& method : orthogonalizer_list()) {
    CAPTURE(method.name);
    test(method);
  }
}

Tensor as(DType dtype, const Tensor& x) {
  Tensor y(x.shape(), dtype);
  ops::copy(x, y);
  return y;
}

Tensor random(Shape shape, uint64_t stream, double deviation = 1) {
  Tensor x(shape, DType::f64);
  ops::random_normal(11, stream, 0, deviation, x);
  return x;
}

Tensor orthogonal(const Tensor& x, const Orthogonalization& how, double scale = 1) {
  Tensor bank = as(x.dtype(), x),
         result(x.shape(), x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  orthogonalize(bank, how, scale, result);
  return result;
}

Tensor transposed(const Tensor& x) {
  int64_t count = x.shape()[0], m = x.shape()[1], n = x.shape()[2];
  std::vector<double> from = to_vector(x), to(from.size());
  for (int64_t k = 0; k < count; k++) {
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++)
        to[size_t(k * m * n + j * m + i)] = from[size_t(k * m * n + i * n + j)];
    }
  }
  return Tensor::of(to, {count, n, m}, x.dtype());
}

Tensor times(const Tensor& a, const Tensor& b) {
  Tensor c({a.shape()[0], a.shape()[1], b.shape()[2]}, DType::f64);
  ops::matmul(a, b, {c}, {});
  return c;
}

Tensor random_rotation(int64_t n, uint64_t stream) {
  Tensor q({1, n, n}, DType::f64);
  ops::orthonormal_columns(random({1, n, n}, stream), q);
  return q;
}

// Singular values of one matrix, by eigenvalues of x x^T or x^T x.
std::vector<double> singular_values(const Tensor& x) {
  Tensor wide = x.shape()[1] <= x.shape()[2] ? as(DType::f64, x) : transposed(as(DType::f64, x));
  int64_t m = wide.shape()[1];
  Tensor gram = times(wide, transposed(wide)), basis(gram.shape(), DType::f64);
  eigenvectors(gram, basis);
  Tensor diagonal = times(transposed(basis), times(gram, basis));
  std::vector<double> values;
  for (int64_t i = 0; i < m; i++)
    values.push_back(std::sqrt(std::max(0.0, to_vector(diagonal)[size_t(i * m + i)])));
  return values;
}

double difference(const Tensor& a, const Tensor& b) { return distance(a, to_vector(b)); }

const std::vector<double> kG1 = {1, 2, 3, 4, 0, -1, 2, 1, 2, 0, -1, 3};

}  // namespace

TEST_CASE("singular values go where the published maps take them") {
  const double sigmas[] = {1e-4, 1e-3, 1e-2, .05, .1, .3, .5, .7, .9, 1.0};
  const struct {
    const char* method;
    double expected[10];
  } maps[] = {
      {"jordan5",
       {.048473, .470544, .698917, .758120, .712120, 1.079592, .765439, 1.120323, .682011,
        .696436}},
      {"you5",
       {.049257, .474982, 1.018025, 1.010644, 1.019050, .996224, .985869, 1.013685, .979914,
        .978346}},
      {"polar_express",
       {.098806, .858873, 1.027110, .908558, 1.059161, .983142, .910611, .935634, .874922,
        .859129}},
      {"classic12", {.393027, 1.000005, 1, 1, 1, 1, 1, 1, 1, 1}},
  };
  for (const auto& map : maps) {
    const Orthogonalizer& method = find_orthogonalizer(map.method);
    for (size_t i = 0; i < 10; i++) {
      // A matrix of one such singular value besides others, so large that eps does not matter, of
      // the norm that the orthogonaliser divides by.
      double sigma = sigmas[i] * method.safety, rest = std::sqrt(std::max(0.0, 1 - sigma * sigma));
      bool possible = sigma <= 1;
      CAPTURE(map.method);
      CAPTURE(sigmas[i]);
      double y = sigmas[i];
      for (int step = 0; step < method.steps; step++) {
        const Quintic& p = method.polynomial(step);
        y = p.a * y + p.b * std::pow(y, 3) + p.c * std::pow(y, 5);
      }
      CHECK(std::fabs(y - map.expected[i]) < 6e-7);
      if (!possible) continue;
      Tensor x = Tensor::of({1e6 * sigma, 0, 0, 1e6 * rest}, {1, 2, 2}, DType::f64);
      std::vector<double> got = to_vector(orthogonal(x, {.method = map.method}));
      CHECK(std::fabs(got[0] - map.expected[i]) < 6e-7);
      CHECK(got[1] == 0);
      CHECK(got[2] == 0);
      std::vector<double> single = to_vector(orthogonal(as(DType::f32, x), {.method = map.method}));
      CHECK(std::fabs(single[0] - map.expected[i]) < 2e-5);
    }
  }
}

TEST_CASE("a 3 x 4 matrix, worked out elsewhere") {
  const struct {
    const char* method;
    std::vector<double> expected;
  } cases[] = {
      {"exact",
       {.062100451809, .598781771856, .561057145981, .568171455216, -.014205031792, -.761480940236,
        .618542938643, .193260517914, .545587654633, -.230187918223, -.474376754386,
        .651394142063}},
      {"jordan5",
       {.030455611775, .486459093461, .570754286726, .494564491924, -.073445488889, -.552379303374,
        .610838709306, .123825484909, .574135546328, -.176051190511, -.600206987753,
        .638109552637}},
      {"polar_express",
       {.040273203626, .613654596972, .575521743075, .540535731765, -.030241222330, -.801151637717,
        .660949486973, .181905164447, .585753449334, -.251433483695, -.550469013096,
        .673788104204}},
  };
  for (const auto& c : cases) {
    CAPTURE(c.method);
    Tensor x = Tensor::of(kG1, {1, 3, 4}, DType::f64);
    CHECK(distance(orthogonal(x, {.method = c.method}), c.expected) < 2e-12);
    CHECK(distance(orthogonal(as(DType::f32, x), {.method = c.method}), c.expected) < 1e-5);
  }
}

TEST_CASE("Polar Express with a safety factor is the published list, rounded as published") {
  const Quintic rounded[] = {{8.2051, -22.9019, 16.4607}, {4.0664, -2.8612, 0.5184},
                             {3.9096, -2.8234, 0.5250},   {3.2856, -2.4153, 0.4853},
                             {2.2779, -1.6198, 0.3985},   {1.8726, -1.2307, 0.3585},
                             {1.8564, -1.2132, 0.3568},   {1.8750, -1.2500, 0.3750}};
  const Orthogonalizer& method = find_orthogonalizer("polar_express_101");
  for (int step = 0; step < 12; step++) {
    const Quintic &p = method.polynomial(step), &q = rounded[std::min(step, 7)];
    CHECK(std::fabs(p.a - q.a) < 1e-4);
    CHECK(std::fabs(p.b - q.b) < 1e-4);
    CHECK(std::fabs(p.c - q.c) < 1e-4);
  }
}

TEST_CASE("the exact polar factor: of what there is, and nothing else") {
  Tensor zero = Tensor::zeros({1, 3, 5}, DType::f64);
  CHECK(difference(orthogonal(zero, {.method = "exact"}), zero) == 0);
  for (auto [m, n] : {std::pair<int64_t, int64_t>{7, 4}, {4, 7}, {6, 6}, {1, 5}, {5, 1}}) {
    CAPTURE(m);
    CAPTURE(n);
    // <x, polar(x)> is the sum of singular values, and polar(x) has them all at 1 or 0.
    for (int64_t rank : {int64_t(1), std::min(m, n)}) {
      Tensor x = times(random({1, m, rank}, 1), random({1, rank, n}, 2)),
             y = orthogonal(x, {.method = "exact"});
      std::vector<double> of_x = singular_values(x), of_y = singular_values(y);
      double nuclear = 0, inner = 0;
      for (double s : of_x) nuclear += s;
      std::vector<double> a = to_vector(x), b = to_vector(y);
      for (size_t i = 0; i < a.size(); i++) inner += a[i] * b[i];
      CHECK(inner == doctest::Approx(nuclear).epsilon(1e-7));  // the square root halves digits
      for (size_t i = 0; i < of_y.size(); i++) {
        if (int64_t(i) < rank) CHECK(of_y[i] == doctest::Approx(1).epsilon(1e-10));
        if (int64_t(i) >= rank) CHECK(of_y[i] < 1e-7);
      }
    }
  }
  // Root mean square 1 / sqrt(the longer side) at full rank.
  Tensor y = orthogonal(random({1, 9, 4}, 3), {.method = "exact"}), s({1}, DType::f64);
  ops::sum_of_squares(y, s);
  CHECK(std::sqrt(item(s) / 36) == doctest::Approx(1 / std::sqrt(9.0)).epsilon(1e-12));
}

TEST_CASE("methods that converge find the exact polar factor; the others stay in their band") {
  Tensor x = random({2, 24, 16}, 4);
  Tensor exact = orthogonal(x, {.method = "exact"});
  for (const char* method : {"classic12", "polar_express_raw", "polar_express_101", "deepseekv4"}) {
    CAPTURE(method);
    CHECK(difference(orthogonal(x, {.method = method, .steps = 24}), exact) < 1e-8);
  }
  // Steps that converge undo the ones before, whatever those were.
  Tensor small = random({1, 4, 3}, 5);
  Tensor rotation = orthogonal(as(DType::f32, small), {.method = "classic12", .steps = 30});
  Tensor gram = times(transposed(as(DType::f64, rotation)), as(DType::f64, rotation));
  CHECK(distance(gram, {1, 0, 0, 0, 1, 0, 0, 0, 1}) < 1e-5);
}

TEST_CASE("spectra of random matrices lie inside the published bands, in fp32 and bf16") {
  // From its own scalar map: an upper end for all singular values, a lower one for those above
  // 1/100 of the norm; bf16 may leave the band by a few hundredths.
  for_each_method([](const Orthogonalizer& method) {
    double low = 1e9, high = 0;
    for (double s = 0.0005; s <= 1; s += 0.0005) {
      double y = s;
      for (int step = 0; step < method.steps; step++) {
        const Quintic& p = method.polynomial(step);
        y = p.a * y + p.b * std::pow(y, 3) + p.c * std::pow(y, 5);
      }
      if (s >= 0.01) low = std::min(low, y);
      high = std::max(high, y);
    }
    if (method.steps == 0) low = high = 1;
    if (method.preconditioned) low = 0.6;  // no Frobenius norm: smaller values to start from
    for (auto [m, n] : {std::pair<int64_t, int64_t>{64, 64}, {64, 160}, {160, 64}}) {
      CAPTURE(m);
      CAPTURE(n);
      Tensor x = random({1, m, n}, 6);
      double norm = std::sqrt(double(m * n)), least = singular_values(x).back() / norm;
      for (DType dtype : {DType::f32, DType::bf16}) {
        if (dtype == DType::bf16 && method.wants_fp32) continue;
        std::vector<double> s = singular_values(orthogonal(as(dtype, x), {.method = method.name}));
        double more = dtype == DType::bf16 ? 0.06 : 0.002;
        CHECK(s.front() < high + more);
        if (least > 0.01) CHECK(s.back() > low - more);
      }
    }
  });
  // you5 and Polar Express are as close to U V^T as their implementations promise.
  Tensor x = random({1, 128, 64}, 7);
  Tensor exact = orthogonal(x, {.method = "exact"});
  CHECK(difference(orthogonal(as(DType::f32, x), {.method = "you5"}), exact) < 0.1);
  CHECK(difference(orthogonal(as(DType::f32, x), {.method = "polar_express_101", .steps = 16}),
                   exact) < 1e-5);
  // bf16: Gram - I at most 0.15, for the methods that aim at 1.
  for (const char* method : {"you5", "polar_express"}) {
    Tensor y = as(DType::f64, orthogonal(as(DType::bf16, x), {.method = method}));
    Tensor gram = times(transposed(y), y);
    double worst = 0;
    for (int64_t i = 0; i < 64; i++) {
      for (int64_t j = 0; j < 64; j++)
        worst = std::max(worst, std::fabs(gram.data<double>()[i * 64 + j] - double(i == j)));
    }
    CAPTURE(method);
    CHECK(worst < (std::string(method) == "you5" ? 0.06 : 0.3));
  }
}

TEST_CASE("a spread of twelve decades: methods made for it come closer than those that are not") {
  const int64_t n = 12;
  Tensor diagonal = Tensor::zeros({1, n, n}, DType::f64);
  for (int64_t i = 0; i < n; i++)
    diagonal.data<double>()[i * n + i] = std::pow(10.0, 6 - double(i) * 12 / double(n - 1));
  Tensor x = times(times(random_rotation(n, 8), diagonal), random_rotation(n, 9));
  Tensor exact = orthogonal(x, {.method = "exact"});
  auto error = [&](const char* method, int64_t steps) {
    return difference(orthogonal(x, {.method = method, .steps = steps}), exact);
  };
  double you = error("you5", 5);
  CHECK(error("polar_express_101", 10) < you);
  CHECK(error("deepseekv4", 10) < you);
}

TEST_CASE("rotating, transposing, negating, scaling: before or after is the same") {
  for_each_method([](const Orthogonalizer& method) {
    Orthogonalization how{.method = method.name};
    Tensor x = random({1, 6, 9}, 10), y = orthogonal(x, how);
    Tensor left = random_rotation(6, 11), right = random_rotation(9, 12);
    if (!method.preconditioned)  // scaled rows have other singular vectors
      CHECK(difference(orthogonal(times(times(left, x), right), how),
                       times(times(left, y), right)) < 1e-10);
    CHECK(difference(orthogonal(transposed(x), how), transposed(y)) < 1e-12);
    Tensor negative(x.shape(), DType::f64), large(x.shape(), DType::f64);
    ops::scale(-1, x, {negative});
    ops::scale(1000, x, {large});
    ops::scale(-1, y, {y});
    CHECK(difference(orthogonal(negative, how), y) < 1e-12);
    ops::scale(-1, y, {y});
    CHECK(difference(orthogonal(large, how), y) < 1e-4);  // eps counts a little
    CHECK(difference(orthogonal(x, how, 0.25), orthogonal(x, how)) > 0.1);
  });
}

TEST_CASE("a bank is its matrices, one by one; zero matrices, rows and columns stay zero") {
  for_each_method([](const Orthogonalizer& method) {
    Orthogonalization how{.method = method.name};
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      for (auto [m, n] : {std::pair<int64_t, int64_t>{5, 8}, {8, 5}}) {
        Tensor bank = random({3, m, n}, 13), padded = Tensor::zeros({3, m + 2, n + 3}, DType::f64);
        for (int64_t j = 0; j < m * n; j++) bank.data<double>()[m * n + j] = 0;  // the second one
        for (int64_t k = 0; k < 3; k++) {
          for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++)
              padded.data<double>()[(k * (m + 2) + i) * (n + 3) + j] =
                  bank.data<double>()[(k * m + i) * n + j];
          }
        }
        Tensor x = as(dtype, bank), y = orthogonal(x, how);
        for (int64_t k = 0; k < 3; k++)
          CHECK(difference(orthogonal(x.slice(k, k + 1), how), y.slice(k, k + 1)) == 0);
        std::vector<double> all = to_vector(y), in = to_vector(orthogonal(as(dtype, padded), how));
        double worst = 0;
        for (int64_t k = 0; k < 3; k++) {
          for (int64_t i = 0; i < m + 2; i++) {
            for (int64_t j = 0; j < n + 3; j++) {
              double expected = i < m && j < n ? all[size_t((k * m + i) * n + j)] : 0,
                     got = in[size_t((k * (m + 2) + i) * (n + 3) + j)];
              if (expected == 0) CHECK(got == 0);
              worst = std::max(worst, std::fabs(got - expected));
            }
          }
        }
        CHECK(worst < (dtype == DType::bf16 ? 0.05 : dtype == DType::f32 ? 1e-4 : 1e-10));
      }
    }
  });
}

TEST_CASE("rank one, huge and tiny matrices, in every type and form, wide and tall") {
  for_each_method([](const Orthogonalizer& method) {
    for (const char* form : {"standard", "gram"}) {
      for (auto [m, n] : {std::pair<int64_t, int64_t>{6, 20}, {20, 6}, {1, 9}, {9, 1}}) {
        Tensor one = times(random({1, m, 1}, 14), random({1, 1, n}, 15));
        for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
          CAPTURE(std::string(form));
          CAPTURE(m);
          CAPTURE(name_of(dtype));
          Orthogonalization how{.method = method.name, .form = form};
          // The singular value that the one direction ends with; noise in the others grows, too.
          auto along = [&](const Tensor& y) {
            CHECK(all_finite(y));
            std::vector<double> a = to_vector(one), b = to_vector(y);
            double inner = 0, length = 0;
            for (size_t i = 0; i < a.size(); i++) inner += a[i] * b[i], length += a[i] * a[i];
            return inner / std::sqrt(length);
          };
          double expected = along(orthogonal(as(dtype, one), how));
          bool half = dtype == DType::bf16;
          if (half && (method.wants_fp32 || how.form == "gram")) continue;  // promised less
          CHECK(expected > (half ? 0.3 : 0.6));
          CHECK(expected < (half ? 1.5 : 1.2));
          for (int exponent : {123, 100, -66, -100, -126}) {  // squares leave fp32
            CAPTURE(exponent);
            double size = std::ldexp(1, exponent);
            Tensor scaled(one.shape(), DType::f64);
            ops::scale(size, one, {scaled});
            double got = along(orthogonal(as(dtype, scaled), how));
            if (size > 1) CHECK(got == doctest::Approx(expected).epsilon(half ? 0.5 : 0.05));
            if (method.steps == 0 && size >= 1e-37) CHECK(got == doctest::Approx(1).epsilon(0.01));
          }
        }
      }
    }
  });
}

TEST_CASE("the Gram form takes the same steps: wide and tall, any number of them, in every type") {
  for_each_method([](const Orthogonalizer& method) {
    for (auto [m, n] : {std::pair<int64_t, int64_t>{6, 24}, {24, 6}, {5, 5}, {1, 7}}) {
      for (int64_t steps : {1, 2, 3, 5, 7}) {
        CAPTURE(m);
        CAPTURE(steps);
        Tensor x = random({3, m, n}, 16);
        Tensor standard = orthogonal(x, {.method = method.name, .steps = steps}, 0.5);
        Tensor gram = orthogonal(x, {.method = method.name, .steps = steps, .form = "gram"}, 0.5);
        CHECK(difference(gram, standard) < 1e-7);  // the steepest slopes multiply the rounding
      }
    }
  });
  Tensor x = random({2, 16, 64}, 17), exact = orthogonal(x, {});
  for (auto [dtype, most] : {std::pair{DType::f32, 1e-4}, {DType::bf16, 0.15}})
    CHECK(difference(orthogonal(as(dtype, x), {.form = "gram"}), exact) < most);
}

TEST_CASE(
    "AOL's scaling: row sums of the Gram matrix to the power -1/2, no singular value above 1") {
  for (bool tall : {false, true}) {
    Tensor x = random({1, 6, 11}, 18), scaled = as(DType::f64, x);
    Tensor gram = times(x, transposed(x));
    for (int64_t i = 0; i < 6; i++) {
      double sum = 0;
      for (int64_t j = 0; j < 6; j++) sum += std::fabs(gram.data<double>()[i * 6 + j]);
      for (int64_t j = 0; j < 11; j++)
        scaled.data<double>()[i * 11 + j] /= find_orthogonalizer("aol").safety * std::sqrt(sum);
    }
    CHECK(singular_values(scaled).front() <= 1 + 1e-12);
    // From there, the scalar map: singular vectors stay.
    const Orthogonalizer& method = find_orthogonalizer("aol");
    for (int step = 0; step < 4; step++) {
      const Quintic& p = method.polynomial(step);
      Tensor a = times(scaled, transposed(scaled)), aa = times(a, a), next = times(a, scaled);
      Tensor far = times(aa, scaled);
      ops::scale(p.b, next, {next});
      ops::scale(p.c, far, {next, true});
      ops::scale(p.a, scaled, {next, true});
      scaled = next;
    }
    Tensor got = tall ? transposed(orthogonal(transposed(x), {.method = "aol"}))
                      : orthogonal(x, {.method = "aol"});
    CHECK(difference(got, scaled) < 1e-9);
  }
}

TEST_CASE("auto is never bf16 for methods that do not bear it, the exact one among them") {
  for_each_method([](const Orthogonalizer& method) {
    Orthogonalization how{.method = method.name};
    for (DType dtype : {DType::f32, DType::f64}) {
      DType chosen = how.type(Tensor({1, 2, 2}, dtype));
      bool half = dtype == DType::f32 && backend(Device::cpu).fast_bf16() && !method.wants_fp32;
      CHECK((chosen == DType::bf16) == half);
      if (method.steps == 0) CHECK(chosen == dtype);
    }
  });
}

TEST_CASE("what is no bank, and what is on no list, is refused") {
  Tensor flat({3, 4});
  CHECK_THROWS_AS(orthogonalize(flat, {}, 1, flat), Error);
  std::string message = input_error_of([] { find_orthogonalizer("jordan"); });
  CHECK(contains(message, "'jordan5'"));
}

TEST_CASE("orthonormal columns span what the columns spanned, in order; what depends is replaced") {
  for (auto [m, n] : {std::pair<int64_t, int64_t>{7, 4}, {6, 6}, {9, 1}}) {
    Tensor x = random({2, m, n}, 19), q(x.shape(), DType::f64);
    ops::orthonormal_columns(x, q);
    Tensor gram = times(transposed(q), q), triangle = times(transposed(q), x);
    Tensor again = times(q, triangle);
    CHECK(difference(again, x) < 1e-12);
    for (int64_t k = 0; k < 2; k++) {
      for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
          int64_t at = (k * n + i) * n + j;
          CHECK(std::fabs(gram.data<double>()[at] - double(i == j)) < 1e-14);
          if (i > j) CHECK(std::fabs(triangle.data<double>()[at]) < 1e-13);
        }
      }
    }
  }
  // A column twice, one of zeros, two that differ by a billionth.
  Tensor x =
      Tensor::of({1, 1, 0, 1, 2, 2, 0, 2, 3, 3, 0, 3 + 1e-9, 4, 4, 0, 4}, {1, 4, 4}, DType::f64);
  for (const Tensor& bank : {x, Tensor::zeros({1, 4, 4}, DType::f64)}) {
    Tensor q(bank.shape(), DType::f64);
    ops::orthonormal_columns(bank, q);
    Tensor gram = times(transposed(q), q);
    CHECK(distance(gram, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}) < 1e-12);
  }
  Tensor wide({1, 3, 4}), q(wide.shape());
  CHECK_THROWS_AS(ops::orthonormal_columns(wide, q), Error);
}

TEST_CASE("eigenvectors diagonalise, largest first, and complete the basis of a singular matrix") {
  for (int64_t rank : {6, 2, 0}) {
    Tensor half = random({2, 6, std::max<int64_t>(rank, 1)}, 20, rank ? 1 : 0);
    Tensor a = times(half, transposed(half)), v(a.shape(), DType::f64);
    eigenvectors(a, v);
    Tensor diagonal = times(transposed(v), times(a, v)), unit = times(transposed(v), v);
    for (int64_t k = 0; k < 2; k++) {
      for (int64_t i = 0; i < 6; i++) {
        for (int64_t j = 0; j < 6; j++) {
          const double *d = diagonal.data<double>() + (k * 6 + i) * 6 + j,
                       *u = unit.data<double>() + (k * 6 + i) * 6 + j;
          CHECK(std::fabs(*u - double(i == j)) < 1e-12);
          if (i != j) CHECK(std::fabs(*d) < 1e-10);
          if (i == j && i > 0)
            CHECK(*d <= diagonal.data<double>()[(k * 6 + i - 1) * 6 + i - 1] + 1e-10);
        }
      }
    }
  }
}
