// tests/nn/model_test.cpp - parameters in banks, and a model that allocates nothing new after its
// first step.
#include "nn/model.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "tensor/ops.h"

using namespace murmur;

namespace {

GptConfig tiny(Arch arch = Arch::gpt2) {
  return {
      .n_layer = 2, .n_head = 2, .n_embd = 32, .block_size = 16, .vocab_size = 50, .arch = arch};
}

Tensor tokens(uint64_t stream, int64_t batch = 3, int64_t time = 16) {
  Tensor wide({batch, time}, DType::f64), ids({batch, time}, DType::i32);
  ops::random_uniform(1, stream, 0, 50, wide);
  ops::copy(wide, ids);
  return ids;
}

double step(Model& model) {
  model.parameters.begin_gradients();
  Tape tape;
  Var loss = model.gpt.loss(tokens(0), tokens(1));
  tape.backward(loss);
  model.parameters.end_gradients();
  return item(loss.value());
}

}  // namespace

TEST_CASE("matrices of one shape lie next to each other; every parameter is in one bank, once") {
  for (Arch arch : {Arch::gpt2, Arch::modern}) {
    Model model(tiny(arch), 1);
    std::set<std::string> seen;
    int64_t elements = 0;
    for (const Bank& bank : model.parameters.banks()) {
      CHECK(int64_t(bank.members.size()) == bank.count);
      CHECK(bank.value.shape() == Shape{bank.count, bank.rows, bank.cols});
      for (int64_t k = 0; k < bank.count; k++) {
        const Parameter& p = *bank.members[size_t(k)];
        CHECK(seen.insert(p.name).second);
        CHECK(p.role == bank.role);
        CHECK(model.parameters.value(p).raw() == bank.value.slice(k, k + 1).raw());
        CHECK(model.parameters.gradient(p).raw() == bank.gradient.slice(k, k + 1).raw());
        elements += p.shape.numel();
      }
    }
    CHECK(seen.size() == model.parameters.all().size());
    CHECK(elements == model.parameters.count());
  }
}

TEST_CASE("rows of padding take no part: loss and gradients are those of the model without them") {
  for (Arch arch : {Arch::gpt2, Arch::modern}) {
    GptConfig wide = tiny(arch);
    wide.true_vocab_size = wide.vocab_size;
    wide.vocab_size = 64;
    Model plain(tiny(arch), 1), padded(wide, 1);
    auto in_common = [](const Parameter& p, const Tensor& of_padded) {
      return p.shape.rank() == 2 ? of_padded.slice(0, p.shape[0]) : of_padded;
    };
    for (const Parameter& p : plain.parameters.all()) {
      Tensor value = padded.parameters.value(padded.parameters.find(p.name));
      ops::fill(value, 3);  // and so it is in the padding
      Tensor common = in_common(p, value);
      ops::copy(plain.parameters.value(p), common);
    }
    CHECK(step(padded) == doctest::Approx(step(plain)).epsilon(1e-6));
    for (const Parameter& p : plain.parameters.all()) {
      CAPTURE(p.name);
      Tensor gradient = padded.parameters.gradient(padded.parameters.find(p.name));
      std::vector<double> got = to_vector(in_common(p, gradient)),
                          want = to_vector(plain.parameters.gradient(p));
      for (size_t i = 0; i < want.size(); i++) CHECK(std::fabs(got[i] - want[i]) < 1e-6);
      if (gradient.numel() == p.shape.numel()) continue;
      for (double v : to_vector(gradient.slice(p.shape[0], 64))) CHECK(v == 0);
    }
  }
  GptConfig small = tiny();
  small.true_vocab_size = 51;
  Parameters parameters;
  CHECK_THROWS_WITH_AS(Gpt(small, parameters), doctest::Contains("smaller than the 51 tokens"),
                       InputError);
}

TEST_CASE("first values depend on seed and name only") {
  Model small(tiny(), 5), other(tiny(), 6);
  GptConfig deeper = tiny();
  deeper.n_layer = 3;
  deeper.arch = Arch::modern;
  Model deep(deeper, 5);
  auto first = [](Model& m, const char* name) {
    return to_vector(m.parameters.value(m.parameters.find(name)));
  };
  CHECK(first(small, "h.1.attn.c_attn.weight") == first(deep, "h.1.attn.c_attn.weight"));
  CHECK(first(small, "h.1.attn.c_attn.weight") != first(other, "h.1.attn.c_attn.weight"));
  CHECK(first(small, "h.0.attn.c_attn.weight") != first(small, "h.1.attn.c_attn.weight"));
  for (double v : first(deep, "h.0.mlp.c_proj.weight")) CHECK(v == 0);
  for (double v : first(small, "h.0.ln_1.weight")) CHECK(v == 1);
}

TEST_CASE("after the first step no memory is asked from the system") {
  for (Arch arch : {Arch::gpt2, Arch::modern}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Model model(tiny(arch), 1, dtype);
      step(model);
      int64_t before = memory_stats().fresh_blocks;
      for (int i = 0; i < 3; i++) step(model);
      CHECK(memory_stats().fresh_blocks == before);
    }
  }
}

TEST_CASE("any number of threads gives the same loss and the same gradients, bit for bit") {
  int before = omp_get_max_threads();
  for (int64_t width : {32, 128, 384, 768}) {  // a small one, then those of the presets
    for (Arch arch : {Arch::gpt2, Arch::modern}) {
      for (DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(width);
        CAPTURE(int(arch));
        CAPTURE(std::string(name_of(dtype)));
        GptConfig config = tiny(arch);
        config.n_layer = 1;
        config.n_embd = width;
        config.n_head = std::max<int64_t>(2, width / 64);
        Model model(config, 1, dtype);
        omp_set_num_threads(1);
        double loss = step(model);
        const Tensor& gradients = model.parameters.gradients();
        Tensor first(gradients.shape(), gradients.dtype());
        ops::copy(gradients, first);
        for (int threads : {2, 3, 5, 8, 16}) {
          CAPTURE(threads);
          omp_set_num_threads(threads);
          CHECK(step(model) == loss);
          CHECK(std::memcmp(gradients.raw(), first.raw(), first.bytes()) == 0);
        }
      }
    }
  }
  omp_set_num_threads(before);
}

TEST_CASE("a token sees only what came before it") {
  for (Arch arch : {Arch::gpt2, Arch::modern}) {
    Model model(tiny(arch), 1);
    for (const Parameter& p : model.parameters.all()) {  // modern starts with zero projections
      Tensor value = model.parameters.value(p);
      ops::random_normal(3, uint64_t(p.offset), 0.1, 0.2, value);
    }
    NoGrad quiet;
    Tensor ids = tokens(0, 1), changed = tokens(0, 1);
    changed.data<int32_t>()[10] = (changed.data<int32_t>()[10] + 1) % 50;
    Tensor a = model.gpt.logits(ids).value().view({16, 50}),
           b = model.gpt.logits(changed).value().view({16, 50});
    CHECK(to_vector(a.slice(0, 10)) == to_vector(b.slice(0, 10)));
    for (int64_t t = 10; t < 16; t++)
      CHECK(to_vector(a.slice(t, t + 1)) != to_vector(b.slice(t, t + 1)));
  }
}

TEST_CASE(
    "a shorter sequence than the block is fine, a longer one is refused, a strange token too") {
  Model model(tiny(), 1);
  NoGrad quiet;
  CHECK(model.gpt.logits(tokens(0, 2, 5)).shape() == Shape{2, 5, 50});
  CHECK_THROWS_WITH(model.gpt.logits(tokens(0, 2, 17)), doctest::Contains("block size of 16"));
  Tensor ids = tokens(0);
  ids.data<int32_t>()[3] = 50;
  CHECK_THROWS_WITH(model.gpt.logits(ids), doctest::Contains("token 50 outside"));
}

TEST_CASE("impossible configurations are the user's error") {
  Parameters p;
  CHECK_THROWS_AS(Gpt({.n_layer = 1, .n_head = 3, .n_embd = 32}, p), InputError);
  CHECK_THROWS_AS(Gpt({.n_layer = 0}, p), InputError);
  CHECK_THROWS_AS(Gpt({.n_head = 32, .n_embd = 32, .arch = Arch::modern}, p), InputError);
}

TEST_CASE("bf16 activations stay close to fp32") {
  Model exact(tiny(), 1), coarse(tiny(), 1, DType::bf16);
  CHECK(step(coarse) == doctest::Approx(step(exact)).epsilon(0.01));
  double difference = 0, size = 0;
  auto a = to_vector(exact.parameters.gradients()), b = to_vector(coarse.parameters.gradients());
  for (size_t i = 0; i < a.size(); i++) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  CHECK(difference < 0.03 * 0.03 * size);
}
