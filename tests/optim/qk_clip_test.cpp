// tests/optim/qk_clip_test.cpp - attention scores are measured, and held under a limit.
#include "optim/qk_clip.h"

#include <algorithm>

#include "nn/model.h"
#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

namespace {

const GptConfig kSmall{.n_layer = 1, .n_head = 2, .n_embd = 8, .block_size = 6, .vocab_size = 9};

Tensor some_tokens() {
  return Tensor::of({0, 3, 8, 1, 5, 2, 7, 7, 4, 6, 0, 2}, {2, 6}, DType::i32);
}

// The largest scores of both heads of the only layer, from one pass.
std::vector<double> scores_of(Model& model) {
  model.parameters.begin_gradients();
  model.gpt.loss(some_tokens(), some_tokens());
  return to_vector(model.parameters.find("h.0.attn.c_attn.weight").largest_scores);
}

}  // namespace

TEST_CASE("the largest scores are those of the causal products, over batches and passes") {
  for (auto [batch, time, heads, size] :
       {std::tuple<int64_t, int64_t, int64_t, int64_t>{1, 1, 1, 3},
        {2, 70, 3, 5},
        {3, 33, 2, 16}}) {
    Tensor qkv({batch, time, 3 * heads * size}, DType::f64), y({heads}, DType::f64);
    ops::random_normal(1, 2, 0, 1, qkv);
    std::vector<double> expected(size_t(heads), -1e300), all = to_vector(qkv);
    auto at = [&](int64_t b, int64_t t, int64_t part, int64_t h, int64_t d) {
      return all[size_t((b * time + t) * 3 * heads * size + (part * heads + h) * size + d)];
    };
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < time; i++) {
          for (int64_t j = 0; j <= i; j++) {
            double s = 0;
            for (int64_t d = 0; d < size; d++) s += at(b, i, 0, h, d) * at(b, j, 1, h, d);
            expected[size_t(h)] = std::max(expected[size_t(h)], s / std::sqrt(double(size)));
          }
        }
      }
    }
    ops::fill(y, -INFINITY);
    ops::largest_scores(heads, qkv, y);
    CHECK(distance(y, expected) < 1e-12);
    ops::fill(y, 1e9);  // what was there before counts
    ops::largest_scores(heads, qkv, y);
    CHECK(distance(y, std::vector<double>(size_t(heads), 1e9)) == 0);
  }
}

TEST_CASE("scores above the limit come down to it, those below stay, weights and biases alike") {
  Model model(kSmall, 5, DType::f64);
  Parameters& p = model.parameters;
  for (const char* name : {"h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"}) {
    Tensor value = p.value(p.find(name));  // the second head's queries, large
    ops::random_normal(1, stream_of(name), 0, 0.5, value);
    Tensor loud = value.view({6, value.numel() / 6}).slice(1, 2);
    ops::scale(20, loud, {loud});
  }
  CHECK(!p.find("h.0.attn.c_attn.weight").largest_scores);  // nobody asked
  p.watch_scores();
  std::vector<double> before = scores_of(model), weights = to_vector(p.values());
  double limit = std::sqrt(before[0] * before[1]);
  REQUIRE(before[0] < limit);
  REQUIRE(before[1] > limit);
  qk_clip(p, limit);
  std::vector<double> after = scores_of(model);
  CHECK(after[0] == doctest::Approx(before[0]).epsilon(1e-12));
  CHECK(after[1] == doctest::Approx(limit).epsilon(1e-12));
  // The first head and all values are as they were.
  const Parameter& weight = p.find("h.0.attn.c_attn.weight");
  double root = std::sqrt(limit / before[1]);
  for (int64_t row = 0; row < 24; row++) {
    bool second = row / 4 == 1 || row / 4 == 3;
    for (int64_t j = 0; j < 8; j++) {
      double was = weights[size_t(weight.offset + row * 8 + j)];
      CHECK(p.value(weight).data<double>()[row * 8 + j] ==
            doctest::Approx(second ? root * was : was).epsilon(1e-14));
    }
  }
  qk_clip(p, 1e9);
  CHECK(scores_of(model) == after);
}

TEST_CASE("an optimizer with a limit keeps it in training, in every type, and others do not look") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const char* name : {"muonclip", "muon"}) {
      Model model(kSmall, 5, dtype);
      Parameters& p = model.parameters;
      Settings settings = {{"lr", "0.5"}, {"weight_decay", "0"}};
      if (std::string(name) == "muonclip") settings["qk_clip"] = "0.01";
      Update update(p, default_routes(configured(name, settings), configured("adamw")), 1);
      bool watched = bool(p.find("h.0.attn.c_attn.weight").largest_scores);
      CHECK(watched == (std::string(name) == "muonclip"));
      if (!watched) continue;
      double largest = 0;
      for (int64_t step = 1; step <= 8; step++) {
        p.begin_gradients();
        Tape tape;
        Var loss = model.gpt.loss(some_tokens(), some_tokens());
        tape.backward(loss);
        p.end_gradients();
        for (double s : to_vector(p.find("h.0.attn.c_attn.weight").largest_scores))
          largest = std::max(largest, s);
        update.step(step, 1);
      }
      CHECK(largest > 0.01);  // it had something to do
      for (const Bank& bank : p.banks()) {
        if (!bank.shadow) continue;
        Tensor rounded(bank.value.shape(), DType::bf16);
        ops::copy(bank.value, rounded);
        CHECK(bits_of(bank.shadow) == bits_of(rounded));
      }
    }
  }
}
