// tests/cuda/rows_test.cpp - operations along rows, where rows come in 16-byte pieces and where
// they do not.
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {
namespace {

Tensor targets_for(int64_t rows, int64_t vocabulary) {
  Tensor t({rows}, DType::i32);
  for (int64_t r = 0; r < rows; r++) t.data<int32_t>()[r] = int32_t((r * 7919 + 1) % vocabulary);
  t.data<int32_t>()[0] = int32_t(vocabulary - 1);
  return t;
}

struct Rows {
  int64_t rows, cols, margin;
};

}  // namespace

TEST_CASE("cuda: softmax and its gradient") {
  for (DType dtype : kSingle) {
    for (auto [rows, cols, margin] : {Rows{1, 1, 0}, {5, 7, 0}, {3, 264, 8}, {2, 2100, 1}}) {
      CAPTURE(cols);
      Pair x = values({rows, cols}, dtype, 1, margin), dy = values({rows, cols}, dtype, 2, margin);
      Pair y = result({rows, cols}, dtype, margin);
      on_both([&](Device d) { ops::softmax(x.on(d), y.on(d)); });
      check_equal(y);
      for (bool accumulate : {false, true}) {
        Pair dx = destination({rows, cols}, dtype, accumulate, margin);
        on_both([&](Device d) {
          ops::softmax_backward(y.on(d), dy.on(d), {dx.on(d), accumulate});
        });
        check_equal(dx);
      }
    }
  }
}

TEST_CASE("cuda: cross entropy, in shared memory and not, and its gradient in place") {
  // 3000 and 40 go through shared memory, 3001 and margin 1 cannot, and 52,008 do not fit.
  for (DType dtype : kSingle) {
    for (auto [rows, cols, margin] :
         {Rows{3, 3000, 0}, {2, 3001, 0}, {3, 40, 8}, {3, 40, 1}, {5, 3, 0}, {1, 52008, 0}}) {
      for (bool to_gradient : {false, true}) {
        // With padding: part of a vector, and whole ones.
        for (int64_t vocabulary : {cols, cols - 1, cols - 11}) {
          if (vocabulary <= 0) continue;
          CAPTURE(cols);
          CAPTURE(vocabulary);
          Pair logits = values({rows, cols}, dtype, 1, margin, 3);
          Pair targets = pair_of(targets_for(rows, vocabulary)),
               losses = result({rows}, DType::f32);
          on_both([&](Device d) {
            ops::cross_entropy(logits.on(d), targets.on(d), losses.on(d), to_gradient, vocabulary);
          });
          check_equal(logits);
          check_equal(losses);
          for (int64_t r = 0; to_gradient && r < rows; r++) {
            for (double v : to_vector(logits.device.slice(r, r + 1).columns(vocabulary, cols)))
              CHECK(v == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("cuda: cross entropy of extreme logits, and of a target outside the vocabulary") {
  for (int64_t cols : {64, 61}) {
    Pair logits = values({3, cols}, DType::f32, 1, 0, 2000);
    for (int64_t i = 0; i < cols; i += 2) logits.host.data<float>()[i] = -INFINITY;
    ops::copy(logits.host, logits.device);
    Tensor t = targets_for(3, cols);
    t.data<int32_t>()[0] = 1;
    Pair targets = pair_of(t), losses = result({3}, DType::f32);
    on_both([&](Device d) {
      ops::cross_entropy(logits.on(d), targets.on(d), losses.on(d), true, cols);
    });
    check_equal(logits);
    check_equal(losses);
    for (int32_t outside : {int32_t(-1), int32_t(cols)}) {
      t.data<int32_t>()[1] = outside;
      Tensor x = on_gpu(random({3, cols}, DType::f32, 1)), loss = poisoned({3}, DType::f32);
      ops::cross_entropy(x, on_gpu(t), loss, false, cols);
      std::vector<double> l = to_vector(loss);
      CHECK(std::isfinite(l[0]));
      CHECK(std::isnan(l[1]));
      CHECK(std::isfinite(l[2]));
    }
  }
}

TEST_CASE("cuda: norm, with and without residual, gain and bias") {
  for (DType dtype : kSingle) {
    for (auto [rows, cols, margin] : {Rows{1, 8, 0},
                                      {9, 264, 8},
                                      {3, 768, 0},
                                      {2, 1024, 0},
                                      {2, 1600, 0},
                                      {1, 2048, 0},
                                      {2, 2056, 0},
                                      {3, 7, 0},
                                      {2, 64, 1},
                                      {2, 1027, 0}}) {
      for (Norm kind : {Norm::layer, Norm::rms}) {
        for (int form = 0; form < 4; form++) {
          CAPTURE(cols);
          CAPTURE(form);
          Pair x = values({rows, cols}, dtype, 1, margin), none;
          Pair residual = form & 1 ? values({rows, cols}, dtype, 2, margin) : none;
          Pair gain = form ? values({cols}, DType::f32, 3) : none;
          Pair bias = form & 2 ? values({cols}, DType::f32, 4) : none;
          Pair sum = form & 1 ? result({rows, cols}, dtype, margin) : none;
          Pair y = result({rows, cols}, dtype, margin), stats = result({rows, 2}, DType::f32);
          on_both([&](Device d) {
            ops::norm(kind, x.on(d), residual.on(d), gain.on(d), bias.on(d), sum.on(d), y.on(d),
                      stats.on(d));
          });
          if (form & 1) check_equal(sum);
          check_equal(y);
          check_equal(stats);
          Pair dy = values({rows, cols}, dtype, 5, margin);
          Pair dx = form == 3 ? none : destination({rows, cols}, dtype, form == 1, margin);
          Pair dgain = form ? destination({cols}, DType::f32, form == 2) : none;
          Pair dbias = form & 2 ? destination({cols}, DType::f32, form == 3) : none;
          on_both([&](Device d) {
            ops::norm_backward(kind, x.on(d), gain.on(d), stats.on(d), dy.on(d),
                               {dx.on(d), form == 1}, {dgain.on(d), form == 2},
                               {dbias.on(d), form == 3});
          });
          if (dx.host) check_equal(dx);
          if (dgain.host) check_equal(dgain);
          if (dbias.host) check_equal(dbias);
        }
      }
    }
  }
}

TEST_CASE("cuda: norm gradients of many rows, each block with more than one per warp") {
  for (int64_t cols : {16, 13}) {
    int64_t rows = 2500;
    Pair x = values({rows, cols}, DType::bf16, 1), dy = values({rows, cols}, DType::bf16, 2);
    Pair y = result({rows, cols}, DType::bf16), stats = result({rows, 2}, DType::f32), none;
    Pair dx = result({rows, cols}, DType::bf16), dgain = result({cols}, DType::f32),
         dbias = result({cols}, DType::f32);
    on_both([&](Device d) {
      ops::norm(Norm::layer, x.on(d), none.on(d), none.on(d), none.on(d), none.on(d), y.on(d),
                stats.on(d));
      ops::norm_backward(Norm::layer, x.on(d), none.on(d), stats.on(d), dy.on(d), {dx.on(d)},
                         {dgain.on(d)}, {dbias.on(d)});
    });
    check_equal(dx);
    check_equal(dgain);
    check_equal(dbias);
  }
}

TEST_CASE("cuda: qk_norm and rope, heads in registers and not") {
  struct Heads {
    int64_t heads, size;
  };
  for (DType dtype : kSingle) {
    for (auto [heads, size] : {Heads{2, 64}, {3, 16}, {1, 128}, {5, 6}, {2, 48}, {1, 2}}) {
      CAPTURE(size);
      Shape shape = {2, 5, 3 * heads * size};
      Pair x = values(shape, dtype, 1), dy = values(shape, dtype, 2);
      Pair stats = result({10, 2 * heads, 2}, DType::f32), y = result(shape, dtype);
      Pair angles = values({7, size}, DType::f32, 3);
      on_both([&](Device d) { ops::qk_norm(heads, x.on(d), y.on(d), stats.on(d)); });
      check_equal(y);
      check_equal(stats);
      for (bool accumulate : {false, true}) {
        Pair dx = destination(shape, dtype, accumulate);
        Pair turned = destination(shape, dtype, accumulate);
        on_both([&](Device d) {
          ops::qk_norm_backward(heads, x.on(d), stats.on(d), dy.on(d), {dx.on(d), accumulate});
          ops::rope(heads, accumulate ? -1 : 1, x.on(d), angles.on(d), {turned.on(d), accumulate});
        });
        check_equal(dx);
        check_equal(turned);
      }
    }
  }
}

TEST_CASE("cuda: row operations have the same bits every time") {
  for (int64_t cols : {520, 517}) {
    Pair logits = values({4, cols}, DType::bf16, 1), dy = values({4, cols}, DType::bf16, 2);
    Tensor targets = on_gpu(targets_for(4, cols)), none,
           stats = on_gpu(random({4, 2}, DType::f32, 3));
    check_repeatable([&] {
      Tensor x = on_gpu(logits.host), losses = poisoned({4}, DType::f32);
      ops::cross_entropy(x, targets, losses, true, cols);
      Tensor both = Tensor({4 + 4 * cols}, DType::f32, Device::cuda);
      Tensor first = both.slice(0, 4), rest = both.slice(4, 4 + 4 * cols).view({4, cols});
      ops::copy(losses, first);
      ops::copy(x, rest);
      return both;
    });
    check_repeatable([&] {
      Tensor all = poisoned({3, cols}, DType::f32), dx = poisoned({4, cols}, DType::bf16);
      Tensor dgain = all.slice(0, 1).view({cols}), dbias = all.slice(1, 2).view({cols}),
             sum = all.slice(2, 3).view({cols});
      ops::norm_backward(Norm::layer, logits.device, none, stats, dy.device, {dx}, {dgain},
                         {dbias});
      ops::sum_rows(dx, {sum});
      return all;
    });
  }
}

}  // namespace murmur
