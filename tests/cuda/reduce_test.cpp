// tests/cuda/reduce_test.cpp - sums: of columns, of everything, of each matrix of a bank.
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {

TEST_CASE("cuda: sum and sum_of_squares, whole and by parts") {
  for (DType dtype : kSingle) {
    for (Shape shape : {Shape{1}, Shape{5}, Shape{4, 3, 7}, Shape{6, 8, 520}, Shape{2, 10007}}) {
      for (int64_t margin : {0, 3}) {
        if (margin && shape.rank() == 1) continue;
        Pair x = values(shape, dtype, 1, margin);
        for (DType out : {DType::f32, DType::f64}) {
          for (int64_t parts : {int64_t(1), shape[0]}) {
            CAPTURE(text(shape));
            CAPTURE(parts);
            Pair s = result({parts}, out), squares = result({parts}, out);
            on_both([&](Device d) {
              ops::sum(0.5, x.on(d), s.on(d));
              ops::sum_of_squares(x.on(d), squares.on(d));
            });
            CHECK(relative_error(s.device, s.host) <= 1e-5);
            CHECK(relative_error(squares.device, squares.host) <= 1e-6);
          }
        }
      }
    }
  }
}

TEST_CASE("cuda: sum_rows") {
  for (DType dtype : kSingle) {
    for (Shape shape : {Shape{1, 1}, Shape{3, 5}, Shape{70, 264}, Shape{300, 33}, Shape{0, 9}}) {
      for (int64_t margin : {0, 1, 8}) {
        for (bool accumulate : {false, true}) {
          CAPTURE(text(shape));
          Pair x = values(shape, dtype, 1, margin);
          Pair y = destination({shape.cols()}, DType::f32, accumulate);
          on_both([&](Device d) { ops::sum_rows(x.on(d), {y.on(d), accumulate}); });
          check_equal(y);
        }
      }
    }
  }
}

TEST_CASE("cuda: sums have the same bits every time") {
  Tensor x = on_gpu(random({3, 40, 136}, DType::bf16, 1));
  check_repeatable([&] {
    Tensor y = poisoned({136}, DType::f32);
    ops::sum_rows(x, {y});
    return y;
  });
  check_repeatable([&] {
    Tensor y = poisoned({3}, DType::f64);
    ops::sum_of_squares(x, y);
    return y;
  });
}

}  // namespace murmur
