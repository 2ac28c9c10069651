// tests/autograd/tape_test.cpp - the tape: order, accumulation, sharing, and what is kept in memory
// for how long.
#include <doctest/doctest.h>

#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/functions.h"
#include "tensor/ops.h"

using namespace murmur;

namespace {

Tensor numbers(std::vector<double> values) {
  Shape shape{int64_t(values.size())};
  return Tensor::of(values, shape, DType::f64);
}

}  // namespace

TEST_CASE("a value used several times gathers all its gradients") {
  Var x = Var::leaf(numbers({1, 2, 3}));
  Tape tape;
  Var y = add(mul(x, x), add(x, x));  // x^2 + 2x
  tape.backward(sum(y));
  CHECK(to_vector(x.gradient()) == std::vector<double>{4, 6, 8});
  CHECK(tape.size() == 0);
}

TEST_CASE("gradients handed on without a copy are not changed behind anyone's back") {
  Var a = Var::leaf(numbers({1, 2})), b = Var::leaf(numbers({3, 4}));
  Tape tape;
  Var s = add(a, b);  // both get s's gradient, one tensor
  Var y = add(s, square(a));
  tape.backward(sum(y));
  CHECK(to_vector(a.gradient()) == std::vector<double>{3, 5});
  CHECK(to_vector(b.gradient()) == std::vector<double>{1, 1});
}

TEST_CASE("a second backward adds, until the gradient is reset") {
  Var x = Var::leaf(numbers({1, 2}));
  for (int i = 0; i < 2; i++) {
    Tape tape;
    tape.backward(sum(square(x)));
  }
  CHECK(to_vector(x.gradient()) == std::vector<double>{4, 8});
  x.reset_gradient();
  CHECK(!x.gradient());
  Tape tape;
  tape.backward(sum(square(x)));
  CHECK(to_vector(x.gradient()) == std::vector<double>{2, 4});
}

TEST_CASE("a parameter's gradient gathers in the tensor that was given") {
  Tensor given = numbers({100, 100});
  Var x = Var::leaf(numbers({1, 2}), given);
  Tape tape;
  tape.backward(sum(add(square(x), x)));
  CHECK(to_vector(given) == std::vector<double>{3, 5});  // written, not added to what was there
}

TEST_CASE("constants, NoGrad and life without a tape record nothing") {
  Var x = Var::leaf(numbers({1, 2})), c(numbers({3, 4}));
  CHECK(!square(x).wants_gradient());
  Tape tape;
  CHECK(!square(c).wants_gradient());
  {
    NoGrad quiet;
    CHECK(!square(x).wants_gradient());
  }
  CHECK(tape.size() == 0);
  CHECK(square(x).wants_gradient());
  CHECK(tape.size() == 1);
}

TEST_CASE("misuse is an error that says what to do") {
  Var x = Var::leaf(numbers({1, 2}));
  Tape tape;
  CHECK_THROWS_WITH(tape.backward(Var(numbers({1}))), doctest::Contains("was not recorded"));
  CHECK_THROWS_WITH(tape.backward(square(x)), doctest::Contains("not a scalar"));
  Var y = sum(square(x));
  {
    NoGrad quiet;
    CHECK_THROWS_WITH(tape.backward(y), doctest::Contains("NoGrad"));
  }
}

TEST_CASE("saved tensors are exactly the captures, and go as the walk passes") {
  int64_t before = memory_stats().bytes_in_use;
  Var x = Var::leaf(Tensor::zeros({1 << 16}));
  const int64_t one = int64_t(x.value().bytes());
  {
    Tape tape;
    Var y = x;
    for (int i = 0; i < 8; i++) y = scale(y, 0.5);  // scale saves nothing
    CHECK(memory_stats().bytes_in_use - before <= 2 * one + 4096);
    for (int i = 0; i < 8; i++) y = gelu(y);  // gelu saves its input
    CHECK(memory_stats().bytes_in_use - before >= 9 * one);
    Var loss = sum(y);
    y = Var();
    reset_peak_memory();
    int64_t start = memory_stats().bytes_in_use;
    tape.backward(loss);
    CHECK(memory_stats().peak_bytes - start <= 3 * one);  // what comes is paid by what goes
    CHECK(memory_stats().bytes_in_use - before <= 2 * one + 4096);  // x and its gradient
  }
}

TEST_CASE("a checkpointed function keeps only its input, and gives the same gradient") {
  auto f = [](const Var& x) {
    Var y = x;
    for (int i = 0; i < 8; i++) y = gelu(y);
    return y;
  };
  Tensor start({1 << 16});
  ops::random_uniform(1, 2, -2, 2, start);
  std::vector<double> gradients[2];
  int64_t held[2];
  for (bool again : {false, true}) {
    Var x = Var::leaf(start);
    Tape tape;
    int64_t before = memory_stats().bytes_in_use;
    Var y = again ? checkpoint(f, x) : f(x);
    held[again] = memory_stats().bytes_in_use - before;
    tape.backward(sum(y));
    gradients[again] = to_vector(x.gradient());
  }
  CHECK(gradients[0] == gradients[1]);
  CHECK(held[1] * 4 < held[0]);
}

TEST_CASE("strided values enter functions as they are") {
  Tensor wide = Tensor::of({1, 2, 3, 4, 5, 6}, {2, 3}, DType::f64);
  Var x = Var::leaf(wide.columns(0, 2));
  Tape tape;
  tape.backward(sum(square(x)));
  CHECK(to_vector(x.gradient()) == std::vector<double>{2, 4, 8, 10});
}
