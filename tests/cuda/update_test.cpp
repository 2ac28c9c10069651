// tests/cuda/update_test.cpp - the passes over parameters: numbers from the device, shadows, banks
// whose squares leave the range of fp32.
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {
namespace {

Pair number(double value, DType dtype = DType::f64) {
  return pair_of(Tensor::of({value}, {1}, dtype));
}

const Shape kShapes[] = {{1}, {7}, {3, 20}, {2, 33, 65}, {3, 4, 1024}};

}  // namespace

TEST_CASE("cuda: descend moves the weights and writes the shadow") {
  for (const Shape& shape : kShapes) {
    for (bool shadowed : {false, true}) {
      for (auto [banked, cautious] :
           {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
        CAPTURE(text(shape));
        CAPTURE(cautious);
        Pair w = values(shape, DType::f32, 1), d = values(shape, DType::f32, 2);
        Pair by = values({banked ? shape[0] : 1}, DType::f32, 3);
        Pair shadow = shadowed ? result(shape, DType::bf16) : Pair{};
        on_both([&](Device device) {
          // On the CPU a rate has one number; a bank is a loop over its matrices.
          for (int64_t k = 0; device == Device::cpu && banked && k < shape[0]; k++) {
            Tensor part = w.host.slice(k, k + 1), none;
            ops::apply_update(0.5 * to_vector(by.host)[size_t(k)], 0.1, cautious,
                              d.host.slice(k, k + 1), part, none);
          }
          if (device == Device::cuda || !banked) {
            ops::apply_update({0.5, by.on(device)}, 0.1, cautious, d.on(device), w.on(device),
                              shadow.on(device));
          } else if (shadowed) {
            ops::copy(w.host, shadow.host);
          }
        });
        check_equal(w);
        if (shadowed) check_equal(shadow);
      }
    }
  }
}

TEST_CASE("cuda: descend takes a direction in bf16") {
  Pair w = values({3, 40}, DType::f32, 1), d = values({3, 40}, DType::bf16, 2);
  Tensor exact({3, 40}, DType::f32), none;
  ops::copy(d.host, exact);
  ops::apply_update(0.1, 0.01, false, exact, w.host, none);
  ops::apply_update(0.1, 0.01, false, d.device, w.device, none);
  check_equal(w);
}

TEST_CASE("cuda: adam, with the step on the device") {
  for (const Shape& shape : kShapes) {
    for (double t : {1.0, 2.0, 1000.0}) {
      CAPTURE(text(shape));
      CAPTURE(t);
      Pair g = values(shape, DType::f32, 1), m = values(shape, DType::f32, 2);
      Pair v = values(shape, DType::f32, 3), direction = result(shape, DType::f32);
      Pair step = number(t);
      on_both([&](Device d) {
        ops::map(unary::square, v.on(d), v.on(d));
        ops::adam(g.on(d), m.on(d), v.on(d), direction.on(d), 0.9, 0.999, 1e-8, step.on(d));
      });
      check_equal(m);
      check_equal(v);
      check_equal(direction);
    }
  }
}

TEST_CASE("cuda: adam_update, with and without a shadow") {
  for (const Shape& shape : kShapes) {
    for (bool shadowed : {false, true}) {
      for (bool cautious : {false, true}) {
        CAPTURE(text(shape));
        Pair g = values(shape, DType::f32, 1), m = values(shape, DType::f32, 2);
        Pair v = values(shape, DType::f32, 3), w = values(shape, DType::f32, 4);
        Pair shadow = shadowed ? result(shape, DType::bf16) : Pair{};
        Pair step = number(3), clip = number(0.25), rate = number(0.5);
        on_both([&](Device d) {
          ops::map(unary::square, v.on(d), v.on(d));
          ops::adam_update({1, clip.on(d)}, g.on(d), m.on(d), v.on(d), 0.9, 0.99, 1e-8, step.on(d),
                           {0.1, rate.on(d)}, 0.2, cautious, w.on(d), shadow.on(d));
        });
        for (const Pair* p : {&m, &v, &w}) check_equal(*p);
        if (shadowed) check_equal(shadow);
      }
    }
  }
}

TEST_CASE("cuda: momentum into fp32 and bf16") {
  for (const Shape& shape : kShapes) {
    for (DType dtype : kSingle) {
      Pair g = values(shape, DType::f32, 1), m = values(shape, DType::f32, 2);
      Pair u = result(shape, dtype);
      on_both([&](Device d) { ops::momentum(g.on(d), m.on(d), u.on(d), 0.95, 1, 0.95, 0.05); });
      check_equal(m);
      check_equal(u);
    }
  }
}

TEST_CASE("cuda: clip_factor") {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (double squares : {0.0, 1e-30, 0.5, 400.0}) {
      for (bool exactly : {false, true}) {
        CAPTURE(squares);
        CAPTURE(exactly);
        Pair s = number(squares, dtype), factor = result({1}, dtype);
        on_both([&](Device d) { ops::clip_factor(s.on(d), 2, exactly, factor.on(d)); });
        check_equal(factor);
        if (exactly)
          CHECK(item(factor.device) * std::sqrt(squares) == doctest::Approx(squares > 0 ? 2 : 0));
      }
    }
  }
}

TEST_CASE("cuda: normalizers, also of matrices whose squares fp32 does not hold") {
  // bf16 keeps 8 digits, and the factor is no power of two: compared with the same bank divided.
  for (DType dtype : kSingle) {
    for (Shape shape : {Shape{7, 5, 9}, Shape{7, 16, 72}}) {
      CAPTURE(text(shape));
      Pair bank = values(shape, dtype, 1);
      std::vector<double> sizes = {1, 1e-3, 1e20, 1e-20, 3e37, 3e-38, 0};
      Tensor by = on_gpu(Tensor::of(sizes, {7}));
      ops::scale({1, back(by)}, bank.host, {bank.host});
      ops::scale({1, by}, bank.device, {bank.device});
      Tensor f = poisoned({7}, DType::f32), squared = poisoned({7}, DType::f32);
      Tensor cpu_f({7}), cpu_squared({7}), y(shape, DType::f32, Device::cuda);
      ops::normalizers(bank.device, 1e-30, f, squared);
      ops::scale({1, f}, bank.device, {y});
      ops::normalizers(bank.host, 1e-30, cpu_f, cpu_squared);
      Tensor expected(shape);
      ops::scale({1, cpu_f}, bank.host, {expected});
      for (int64_t k = 0; k < 7; k++) {
        CAPTURE(k);
        CHECK(relative_error(y.slice(k, k + 1), expected.slice(k, k + 1)) <= tolerance(dtype));
        double fk = to_vector(f)[size_t(k)];
        if (k < 6) CHECK(to_vector(squared)[size_t(k)] == doctest::Approx(fk * fk));
      }
    }
  }
}

TEST_CASE("cuda: a captured update reads its numbers anew at every replay") {
  Tensor w = Tensor::zeros({9}, DType::f32, Device::cuda), none;
  Tensor ones({9}, DType::f32, Device::cuda), rate = on_gpu(Tensor::of({1}, {1}, DType::f64));
  ops::fill(ones, 1);
  auto work = [&] { ops::apply_update({1, rate}, 0, false, ones, w, none); };
  work();
  std::function<void()> replay = gpu().capture(work);
  ops::fill(rate, 2);
  replay();
  replay();
  for (double x : to_vector(w)) CHECK(x == -5);
}

}  // namespace murmur
