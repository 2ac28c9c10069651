// tests/cuda/orthonormal_test.cpp - bases and scores, beside the CPU's.
#include <tuple>

#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {

TEST_CASE("cuda: orthonormal columns, also of dependent and of zero ones") {
  for (const Shape& shape : {Shape{1, 1, 1}, {2, 7, 3}, {3, 40, 40}, {1, 70, 9}}) {
    for (bool dependent : {false, true}) {
      CAPTURE(text(shape));
      CAPTURE(dependent);
      Pair x = values(shape, DType::f32, 1), q = result(shape, DType::f32);
      if (dependent) {  // every second column is zero or the one before
        std::vector<double> v = to_vector(x.host);
        int64_t n = shape[2];
        for (size_t i = 1; i < v.size(); i++) {
          if (int64_t(i) % n % 2 == 1) v[i] = int64_t(i) % n % 4 == 1 ? 0 : v[i - 1];
        }
        x = pair_of(Tensor::of(v, shape));
      }
      on_both([&](Device d) { ops::orthonormal_columns(x.on(d), q.on(d)); });
      check_equal(q);
    }
  }
}

TEST_CASE("cuda: the largest scores of every head") {
  for (DType dtype : kSingle) {
    for (auto [batch, time, heads, size] :
         {std::tuple<int64_t, int64_t, int64_t, int64_t>{1, 1, 1, 4},
          {2, 37, 3, 16},
          {1, 70, 2, 64}}) {
      CAPTURE(time);
      Pair qkv = values({batch, time, 3 * heads * size}, dtype, 1), y = result({heads}, DType::f32);
      on_both([&](Device d) {
        ops::fill(y.on(d), -INFINITY);
        ops::largest_scores(heads, qkv.on(d), y.on(d));
      });
      check_equal(y);
      on_both([&](Device d) {  // what was there before counts
        ops::fill(y.on(d), 1e6);
        ops::largest_scores(heads, qkv.on(d), y.on(d));
      });
      check_equal(y);
    }
  }
}

void check_numbers_of_rows(const Shape& shape, DType dtype) {
  CAPTURE(text(shape));
  Pair x = values(shape, dtype, 1), s = result({shape[0]}, DType::f32), y = result(shape, dtype);
  on_both([&](Device d) {
    ops::sum_of_squares(x.on(d), s.on(d));
    ops::scale({0.5, s.on(d)}, x.on(d), {y.on(d)});
  });
  check_equal(s);
  check_equal(y);
  on_both([&](Device d) { ops::sum(2, x.on(d), s.on(d)); });
  check_equal(s);
}

TEST_CASE("cuda: a number for every row of a bank") {
  for (DType dtype : kSingle) {
    check_numbers_of_rows({5, 9}, dtype);
    check_numbers_of_rows({300, 33}, dtype);
  }
}

TEST_CASE("cuda: more rows than the second side of a grid holds" * doctest::test_suite("long") *
          doctest::skip()) {
  check_numbers_of_rows({70000, 3}, DType::f32);
}

}  // namespace murmur
