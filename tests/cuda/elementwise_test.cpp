// tests/cuda/elementwise_test.cpp - maps and zips, every row of ops.def, over aligned, ragged and
// strided rows.
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {
namespace {

struct UnaryRow {
  Unary op;
  const char* name;
  double low, high;
};
struct BinaryRow {
  Binary op;
  const char* name;
  double low, high;
};
const UnaryRow kUnary[] = {
#define UNARY(name, Functor, low, high, summary) {unary::name, #name, low, high},
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
};
const BinaryRow kBinary[] = {
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary) {binary::name, #name, low, high},
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
};

// Rows of whole vectors, ragged ones, longer than a block takes at once; and with a margin of one
// vector or of a single element.
struct Layout {
  Shape shape;
  int64_t margin;
};
const Layout kLayouts[] = {{{1}, 0},       {{3, 5}, 0},  {{2, 3, 8}, 0}, {{4, 1027}, 0},
                           {{3, 2088}, 8}, {{5, 67}, 8}, {{3, 24}, 1},   {{2, 2, 1}, 3}};

Pair uniform(const Layout& layout, DType dtype, uint64_t seed, double low, double high) {
  Pair p = values(layout.shape, dtype, seed, layout.margin);
  Tensor wide(p.whole_host.shape(), DType::f32);
  ops::random_uniform(seed, 0, low, high, wide);
  on_both([&](Device d) { ops::copy(wide, d == Device::cpu ? p.whole_host : p.whole_device); });
  return p;
}

}  // namespace

TEST_CASE("cuda: every UNARY row and its derivative") {
  for (const UnaryRow& row : kUnary) {
    for (DType dtype : kSingle) {
      for (const Layout& layout : kLayouts) {
        CAPTURE(row.name);
        CAPTURE(text(layout.shape));
        Pair x = uniform(layout, dtype, 1, row.low, row.high);
        Pair y = result(layout.shape, dtype, layout.margin);
        on_both([&](Device d) { ops::map(row.op, x.on(d), y.on(d)); });
        check_equal(y);
        Pair dy = values(layout.shape, dtype, 2, layout.margin);
        for (bool accumulate : {false, true}) {
          Pair dx = destination(layout.shape, dtype, accumulate, layout.margin);
          on_both([&](Device d) {
            ops::map_backward(row.op, x.on(d), dy.on(d), {dx.on(d), accumulate});
          });
          check_equal(dx);
        }
      }
    }
  }
}

TEST_CASE("cuda: every BINARY row and its derivatives, the right side repeated") {
  for (const BinaryRow& row : kBinary) {
    for (DType dtype : kSingle) {
      for (const Layout& layout : kLayouts) {
        std::vector<Layout> rights = {layout, {{}, 0}, {{layout.shape.cols()}, 0}};
        if (layout.shape.rank() == 3) rights.push_back({{layout.shape[1], layout.shape[2]}, 0});
        for (const Layout& right : rights) {
          CAPTURE(row.name);
          CAPTURE(text(layout.shape));
          CAPTURE(text(right.shape));
          Pair a = uniform(layout, dtype, 1, row.low, row.high);
          Pair b = uniform(right, dtype, 2, row.low, row.high);
          Pair y = result(layout.shape, dtype, layout.margin);
          on_both([&](Device d) { ops::zip(row.op, a.on(d), b.on(d), y.on(d)); });
          check_equal(y);
          Pair dy = values(layout.shape, dtype, 3, layout.margin);
          for (bool left : {false, true}) {
            Pair to = destination(layout.shape, dtype, left, layout.margin);
            on_both([&](Device d) {
              ops::zip_backward(row.op, left, a.on(d), b.on(d), dy.on(d), {to.on(d), left});
            });
            check_equal(to);
          }
        }
      }
    }
  }
}

TEST_CASE("cuda: a right side that does not fit is refused, and so is fp64") {
  Tensor a({2, 3}, DType::f32, Device::cuda), b({2}, DType::f32, Device::cuda);
  Tensor wide({2, 3}, DType::f64, Device::cuda);
  CHECK_THROWS_AS(ops::zip(binary::add, a, b, a), Error);
  CHECK_THROWS_AS(ops::map(unary::exp, wide, wide), Error);
}

TEST_CASE("cuda: scale by a number, by a number on the device, by one for each matrix") {
  for (DType from : kSingle) {
    for (DType to : kSingle) {
      for (bool accumulate : {false, true}) {
        for (const Layout& layout : kLayouts) {
          CAPTURE(text(layout.shape));
          std::vector<Pair> factors = {
              {}, pair_of(Tensor::of({0.5}, {1})), pair_of(Tensor::of({0.5}, {1}, DType::f64))};
          int64_t parts = layout.shape[0];
          factors.push_back(values({parts}, DType::f32, 5));
          for (const Pair& by : factors) {
            Pair x = values(layout.shape, from, 1, layout.margin);
            Pair y = destination(layout.shape, to, accumulate, layout.margin);
            on_both([&](Device d) {
              ops::scale({-1.5, by.on(d)}, x.on(d), {y.on(d), accumulate});
            });
            check_equal(y);
          }
        }
      }
    }
  }
}

TEST_CASE("cuda: lerp") {
  for (DType dtype : kSingle) {
    for (const Layout& layout : kLayouts) {
      Pair x = values(layout.shape, dtype, 1, layout.margin);
      Pair y = values(layout.shape, dtype, 2, layout.margin);
      on_both([&](Device d) { ops::lerp(0.25, x.on(d), y.on(d)); });
      check_equal(y);
    }
  }
}

TEST_CASE("cuda: random numbers are those of the CPU") {
  for (DType dtype : kSingle) {
    for (int64_t n : {1, 3, 4, 1025}) {
      Pair u = result({n}, dtype), z = result({n}, dtype);
      on_both([&](Device d) {
        ops::random_uniform(7, 1, -2, 3, u.on(d));
        ops::random_normal(7, 2, 0.5, 2, z.on(d));
      });
      check_equal(u);
      check_equal(z);
    }
  }
}

TEST_CASE("cuda: tensors without elements launch nothing") {
  Tensor x({0, 8}, DType::bf16, Device::cuda), y = x;
  ops::map(unary::exp, x, y);
  ops::zip(binary::add, x, x, y);
  ops::scale(2, x, {y});
  ops::random_normal(1, 1, 0, 1, y);
  ops::softmax(x, y);
}

}  // namespace murmur
