// tests/gpu/ops_bench.cpp - what the engine's operations reach on this GPU, as JSON.
//
//   ops_bench [--tiny] [--ms N] [--only PREFIX]      N: milliseconds of measurement per row
//
// The shapes are those of a step of GPT-2 124M at B=32, T=1024. Times are those of a wall clock
// around a few calls and synchronize(), per call; the buffers of successive calls are different
// ones, together larger than any cache. Inputs are random: zeros run faster than real data.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/model.h"
#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/backend.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "train/config.h"

using namespace murmur;

namespace {

using Json = nlohmann::ordered_json;

struct Sizes {
  int64_t square = 8192, copied = int64_t(1) << 30;  // bf16 elements
  int64_t batch = 32, time = 1024, heads = 12, width = 768, vocabulary = 50304, layers = 12;
  size_t rotated = size_t(512) << 20;  // bytes that successive calls go through
  double ms = 250, sample_ms = 2;
  std::string only;

  int64_t rows() const { return batch * time; }
};

Sizes tiny() {
  Sizes s;
  s.square = 64;
  s.copied = 4096;
  s.batch = 1, s.time = 32, s.heads = 2, s.width = 64, s.vocabulary = 264, s.layers = 2;
  s.rotated = 4096;
  s.ms = 5, s.sample_ms = 0;
  return s;
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Tensor made(Shape shape, DType dtype) { return Tensor(shape, dtype, Device::cuda); }

Tensor random(Shape shape, DType dtype, double deviation = 1) {
  static uint64_t stream = 0;
  Tensor x = made(shape, dtype);
  ops::random_normal(1, stream++, 0, deviation, x);
  return x;
}

Tensor random_tokens(int64_t count, int64_t vocabulary) {
  Tensor wide({count}, DType::f64), tokens({count}, DType::i32);
  ops::random_uniform(1, 0, 0, double(vocabulary), wide);
  ops::copy(wide, tokens);
  return to(Device::cuda, tokens);
}

// What one call does: floating-point operations, and bytes that must travel at least.
struct Work {
  double flops = 0, bytes = 0;
};

class Bench {
 public:
  explicit Bench(const Sizes& sizes) : sizes_(sizes) {}

  bool wanted(const std::string& name) const { return name.rfind(sizes_.only, 0) == 0; }

  // make(): fresh buffers of `bytes`, and a function that does the work in them.
  void row(const std::string& name, const std::string& shape, Work work, size_t bytes,
           const std::function<std::function<void()>()>& make) {
    if (!wanted(name)) return;
    Json entry = {{"name", name}, {"shape", shape}};
    try {
      std::vector<double> times = measure(bytes, make);
      std::sort(times.begin(), times.end());
      double median = times[times.size() / 2];
      entry.update({{"n", times.size()},
                    {"median_ms", median},
                    {"min_ms", times.front()},
                    {"max_ms", times.back()}});
      if (work.flops > 0) entry["tflop_s"] = work.flops / median * 1e-9;
      if (work.bytes > 0) entry["gb_s"] = work.bytes / median * 1e-6;
    } catch (const std::exception& error) {
      entry["error"] = error.what();
    }
    rows_.push_back(entry);
    try {
      release_cached_memory(Device::cuda);
    } catch (const std::exception&) {  // said by the next row
    }
  }

  std::string text() const { return rows_.dump(1); }

 private:
  std::vector<double> measure(size_t bytes,
                              const std::function<std::function<void()>()>& make) const {
    size_t sets = std::clamp<size_t>(sizes_.rotated / std::max<size_t>(bytes, 1) + 1, 1, 32);
    std::vector<std::function<void()>> calls;
    for (size_t i = 0; i < sets; i++) calls.push_back(make());
    size_t next = 0;
    auto sample = [&](int64_t count) {
      double start = now_ms();
      for (int64_t i = 0; i < count; i++) calls[next++ % calls.size()]();
      backend(Device::cuda).synchronize();
      return (now_ms() - start) / double(count);
    };
    sample(int64_t(sets));
    double once = sample(3);
    int64_t count = std::clamp<int64_t>(int64_t(std::ceil(sizes_.sample_ms / once)), 1, 1000);
    std::vector<double> times;
    for (double begin = now_ms(); times.size() < 5 || now_ms() - begin < sizes_.ms;)
      times.push_back(sample(count));
    return times;
  }

  const Sizes& sizes_;
  Json rows_ = Json::array();
};

std::string times(std::initializer_list<int64_t> sizes) {
  std::string s;
  for (int64_t size : sizes) s += (s.empty() ? "" : "x") + std::to_string(size);
  return s;
}

// products ---------------------------------------------------------------------------------------

// c (m, n) of type `out` from bf16 operands; the form says which of them lie transposed.
void product(Bench& bench, const std::string& name, int64_t m, int64_t n, int64_t k,
             const MatmulForm& form, DType out = DType::bf16) {
  size_t bytes = size_t(2 * (m * k + k * n) + int64_t(size_of(out)) * m * n);
  bench.row(name, times({m, n, k}), {2.0 * double(m) * double(n) * double(k), double(bytes)}, bytes,
            [=] {
              Tensor a = random(form.transpose_a ? Shape{k, m} : Shape{m, k}, DType::bf16);
              Tensor b = random(form.transpose_b ? Shape{n, k} : Shape{k, n}, DType::bf16, 0.02);
              Tensor c = made({m, n}, out);
              return [=]() mutable { ops::matmul(a, b, {c}, form); };
            });
}

void linear(Bench& bench, const std::string& name, int64_t rows, int64_t in, int64_t out) {
  product(bench, "linear " + name, rows, out, in, {.transpose_b = true});
  product(bench, "linear " + name + ", input gradient", rows, in, out, {});
  product(bench, "linear " + name + ", weight gradient", out, in, rows, {.transpose_a = true},
          DType::f32);
}

void linear_gelu(Bench& bench, int64_t rows, int64_t in, int64_t out) {
  bench.row("linear mlp up with bias and gelu", times({rows, out, in}),
            {2.0 * double(rows) * double(in) * double(out), 0},
            size_t(2 * (rows * in + 2 * rows * out + in * out)), [=] {
              Tensor x = random({rows, in}, DType::bf16), y = made({rows, out}, DType::bf16);
              Tensor w = random({out, in}, DType::bf16, 0.02);
              MatmulForm form{.transpose_b = true};
              form.bias = random({out}, DType::f32);
              form.op = unary::gelu;
              form.activated = made({rows, out}, DType::bf16);
              return [=]() mutable { ops::matmul(x, w, {y}, form); };
            });
}

// The three products of one step of Newton-Schulz on `count` matrices (m, n), m <= n.
void newton_schulz_products(Bench& bench, int64_t count, int64_t m, int64_t n) {
  double mm = double(m), flops = double(count) * (4 * mm * mm * double(n) + 2 * mm * mm * mm);
  bench.row("newton-schulz products", times({count, m, n}), {flops, 0},
            size_t(2 * count * (2 * m * n + 2 * m * m)), [=] {
              Tensor y = random({count, m, n}, DType::bf16, 1 / std::sqrt(double(m * n)));
              Tensor next = made({count, m, n}, DType::bf16);
              Tensor gram = made({count, m, m}, DType::bf16);
              Tensor poly = made(gram.shape(), DType::bf16);
              return [=]() mutable {
                ops::matmul(y, y, {gram}, {.transpose_b = true, .symmetric = true});
                ops::matmul(gram, gram, {poly},
                            {.alpha = 2.0315, .plus = gram, .beta = -4.775, .symmetric = true});
                ops::matmul(poly, y, {next}, {.plus = y, .beta = 3.4445});
              };
            });
}

// Muon's whole direction of one bank, momentum included; five steps, counted in their plain form.
void muon_direction(Bench& bench, int64_t count, int64_t rows, int64_t cols) {
  double m = double(std::min(rows, cols)), n = double(std::max(rows, cols));
  bench.row("muon direction", times({count, rows, cols}),
            {5 * double(count) * (4 * m * m * n + 2 * m * m * m), 0}, size_t(-1) / 2, [=] {
              std::shared_ptr<Optimizer> muon = make_optimizer("muon");
              Shape shape{count, rows, cols};
              auto bank = std::make_shared<Bank>();
              bank->role = Role::matrix;
              bank->count = count, bank->rows = rows, bank->cols = cols;
              auto state = std::make_shared<State>();
              for (const StateShape& s : muon->state(*bank))
                (*state)[s.name] = Tensor::zeros(s.shape, DType::f32, Device::cuda);
              Tensor gradient = random(shape, DType::f32), direction = made(shape, DType::f32);
              Tensor step = to(Device::cuda, Tensor::of({1}, {1}, DType::f64));
              return [=]() mutable {
                Tensor u = muon->begin({*bank, gradient, gradient, *state, step, 0.01, 0});
                muon->direction({*bank, u, gradient, *state, step, 0.01, 0}, direction);
              };
            });
}

// rows, attention, memory ------------------------------------------------------------------------

void attention(Bench& bench, const Sizes& s) {
  int64_t size = s.width / s.heads;
  double pairs = double(s.batch * s.heads) * double(s.time) * double(s.time) / 2;  // causal: half
  std::string shape = times({s.batch, s.time, s.heads, size});
  size_t bytes = size_t(2 * 8 * s.rows() * s.width);
  auto buffers = [=](auto f) {
    Tensor qkv = random({s.batch, s.time, 3 * s.width}, DType::bf16);
    Tensor y = made({s.batch, s.time, s.width}, DType::bf16);
    Tensor lse = made({s.batch, s.heads, s.time}, DType::f32);
    ops::attention(s.heads, qkv, y, lse);
    return f(qkv, y, lse);
  };
  bench.row("attention forward", shape, {4 * pairs * double(size), 0}, bytes, [=] {
    return buffers([=](Tensor qkv, Tensor y, Tensor lse) {
      return [=]() mutable { ops::attention(s.heads, qkv, y, lse); };
    });
  });
  bench.row("attention backward", shape, {10 * pairs * double(size), 0}, bytes, [=] {
    return buffers([=](Tensor qkv, Tensor y, Tensor lse) {
      Tensor dy = random(y.shape(), DType::bf16), dqkv = made(qkv.shape(), DType::bf16);
      return [=]() mutable { ops::attention_backward(s.heads, qkv, y, lse, dy, {dqkv}); };
    });
  });
}

void norm(Bench& bench, const Sizes& s, Norm kind, const std::string& name) {
  Shape shape{s.rows(), s.width};
  double once = 2.0 * double(shape.numel());
  std::string text = times({s.rows(), s.width});
  auto gain_of = [=](DType dtype) { return random({s.width}, dtype); };
  auto bias_of = [=] { return kind == Norm::layer ? gain_of(DType::f32) : Tensor(); };
  bench.row(name + " of a sum, forward", text, {0, 4 * once}, size_t(4 * once), [=] {
    Tensor x = random(shape, DType::bf16), residual = random(shape, DType::bf16),
           gain = gain_of(DType::f32), bias = bias_of(), sum = made(shape, DType::bf16),
           y = made(shape, DType::bf16), statistics = made({s.rows(), 2}, DType::f32);
    return [=]() mutable { ops::norm(kind, x, residual, gain, bias, sum, y, statistics); };
  });
  bench.row(name + " backward", text, {0, 3 * once}, size_t(3 * once), [=] {
    Tensor x = random(shape, DType::bf16), dy = random(shape, DType::bf16),
           gain = gain_of(DType::f32), bias = bias_of(), y = made(shape, DType::bf16),
           dx = made(shape, DType::bf16), statistics = made({s.rows(), 2}, DType::f32),
           dgain = made({s.width}, DType::f32), dbias = bias ? made({s.width}, DType::f32) : bias,
           none;
    ops::norm(kind, x, none, gain, bias, none, y, statistics);
    return [=]() mutable {
      ops::norm_backward(kind, x, gain, statistics, dy, {dx}, {dgain}, {dbias});
    };
  });
}

void classifier(Bench& bench, const Sizes& s) {
  double once = 2.0 * double(s.rows()) * double(s.vocabulary);
  bench.row("cross entropy, logits to gradient", times({s.rows(), s.vocabulary}), {0, 2 * once},
            size_t(once), [=] {
              Tensor logits = random({s.rows(), s.vocabulary}, DType::bf16);
              Tensor targets = random_tokens(s.rows(), s.vocabulary);
              Tensor losses = made({s.rows()}, DType::f32);
              return [=]() mutable {
                ops::cross_entropy(logits, targets, losses, true, s.vocabulary);
              };
            });
}

void copy(Bench& bench, const Sizes& s) {
  bench.row("copy", times({s.copied}), {0, 4.0 * double(s.copied)}, size_t(4 * s.copied), [=] {
    Tensor x = random({s.copied}, DType::bf16), y = made({s.copied}, DType::bf16);
    return [=]() mutable { ops::copy(x, y); };
  });
}

// The whole update of the model: clipping, directions, weights and their bf16 shadow.
void update(Bench& bench, const Sizes& s, const std::string& optimizer) {
  bench.row("update, " + optimizer, times({s.layers, s.width, s.vocabulary}), {}, size_t(-1) / 2,
            [=] {
              struct Trained {
                Model model;
                Update update;
                Trained(const Config& c)
                    : model(model_config(c, 256), 1, activation_type(c), Device::cuda),
                      update(model.parameters, make_routes(c), c.clip) {}
              };
              Config c = make_config({{"preset", "gpt2"},
                                      {"device", "cuda"},
                                      {"dtype", "bf16"},
                                      {"optimizer", optimizer},
                                      {"n_layer", std::to_string(s.layers)},
                                      {"n_head", std::to_string(s.heads)},
                                      {"n_embd", std::to_string(s.width)},
                                      {"block_size", std::to_string(s.time)},
                                      {"vocab_size", std::to_string(s.vocabulary)}});
              auto trained = std::make_shared<Trained>(c);
              ops::random_normal(1, 0, 0, 1e-3, trained->model.parameters.gradients());
              int64_t step = 0;
              return [=]() mutable { trained->update.step(++step, 1e-3); };
            });
}

void all(Bench& bench, const Sizes& s) {
  product(bench, "product", s.square, s.square, s.square, {});
  copy(bench, s);
  attention(bench, s);
  norm(bench, s, Norm::layer, "layer norm");
  norm(bench, s, Norm::rms, "rms norm");
  classifier(bench, s);
  newton_schulz_products(bench, s.layers, s.width, s.width);
  newton_schulz_products(bench, s.layers, s.width, 4 * s.width);
  muon_direction(bench, s.layers, s.width, s.width);
  muon_direction(bench, s.layers, 4 * s.width, s.width);
  update(bench, s, "muon");
  update(bench, s, "adamw");
  linear(bench, "qkv", s.rows(), s.width, 3 * s.width);
  linear(bench, "projection", s.rows(), s.width, s.width);
  linear(bench, "mlp up", s.rows(), s.width, 4 * s.width);
  linear_gelu(bench, s.rows(), s.width, 4 * s.width);
  linear(bench, "mlp down", s.rows(), 4 * s.width, s.width);
  linear(bench, "head", s.rows(), s.width, s.vocabulary);
}

Sizes parse(int argc, char** argv) {
  bool small = std::any_of(argv + 1, argv + argc, [](char* a) { return !strcmp(a, "--tiny"); });
  Sizes s = small ? tiny() : Sizes();
  for (int i = 1; i < argc; i++) {
    std::string word = argv[i];
    if (word == "--tiny") continue;
    if (i + 1 == argc || (word != "--ms" && word != "--only"))
      throw InputError("ops_bench: '" + word + "' is not --tiny, --ms N or --only PREFIX");
    (word == "--ms" ? void(s.ms = std::atof(argv[i + 1])) : void(s.only = argv[i + 1]));
    i++;
  }
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Sizes sizes = parse(argc, argv);
    if (!cuda_backend()) {
      std::printf("skipped: no CUDA device here\n");
      return 77;
    }
    Bench bench(sizes);
    all(bench, sizes);
    std::printf("%s\n", bench.text().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ops_bench: %s\n", error.what());
    return 1;
  }
}
