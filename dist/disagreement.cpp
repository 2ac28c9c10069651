// dist/disagreement.cpp - what is left of each node's weights, and its largest singular values.
#include "dist/disagreement.h"

#include <cmath>

#include "dist/collectives.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

constexpr int kIterations = 30;

double squares_over_nodes(Communicator& c, const Tensors& tensors) {
  Tensor sum = Tensor::zeros({1}, DType::f64);
  for (const Tensor& x : tensors) {
    Tensor squares({1}, DType::f64, x.device());
    ops::sum_of_squares(x, squares);
    sum.data<double>()[0] += item(squares);
  }
  all_reduce(c, "consensus", {sum});
  return item(sum);
}

// Squares of the largest singular values of matrices, each stacked over nodes, added up: v goes to
// sum_i D_i^T D_i v, again and again, for all banks at once.
double spectral_squares(Communicator& c, const Tensors& banks) {
  if (banks.empty()) return 0;
  Tensors vectors;  // (K, n, 1) each
  for (const Tensor& d : banks) {
    vectors.emplace_back(Shape{d.shape()[0], d.shape()[2], 1}, d.dtype(), d.device());
    ops::random_normal(1, vectors.size(), 0, 1, vectors.back());
  }
  MatmulForm turned;
  turned.transpose_a = true;
  double squares = 0;
  for (int i = 0; i < kIterations; i++) {
    squares = 0;
    for (size_t b = 0; b < banks.size(); b++) {
      const Tensor& d = banks[b];
      Tensor &v = vectors[b], u({d.shape()[0], d.shape()[1], 1}, d.dtype(), d.device()),
             f({d.shape()[0]}, d.dtype(), d.device()), ignored(f.shape(), f.dtype(), f.device());
      ops::normalizers(v, 1e-30, f, ignored);
      ops::scale({1, f}, v, {v});
      ops::matmul(d, v, {u}, {});
      ops::matmul(d, u, {v}, turned);
      Tensor own({1}, DType::f64, d.device());
      ops::sum_of_squares(u, own);
      squares += item(own);
    }
    if (i + 1 < kIterations) all_reduce(c, "consensus", vectors);
  }
  Tensor sum = Tensor::of({squares}, {1}, DType::f64);
  all_reduce(c, "consensus", {sum});
  return item(sum);
}

}  // namespace

Disagreement disagreement(Communicator& c, const Parameters& parameters, const Tensor& common) {
  const Tensor& x = parameters.values();
  Tensor d(x.shape(), x.dtype(), x.device());
  ops::scale(-1, common, {d});
  ops::scale(1, x, {d, true});
  double all = squares_over_nodes(c, {d});
  Tensors matrices, vectors;
  for (const Bank& bank : parameters.banks()) {
    int64_t begin = bank.members[0]->offset;
    Tensor own = d.slice(begin, begin + bank.value.numel());
    if (bank.role == Role::vector)
      vectors.push_back(own);
    else
      matrices.push_back(own.view({bank.count, bank.rows, bank.cols}));
  }
  double spectral = squares_over_nodes(c, vectors) + spectral_squares(c, matrices);
  return {std::sqrt(all), std::sqrt(spectral)};
}

}  // namespace murmur
