// train/bench_mixing.cpp - mixing and packing in turn with STREAM's triad.
#include "train/bench_mixing.h"

#include <omp.h>
#include <unistd.h>  // sysconf

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "tensor/ops.h"
#include "train/bench_timing.h"
#include "train/revision.h"
#include "train/threads.h"

namespace murmur {
namespace {

using Json = nlohmann::ordered_json;

int64_t four_caches() {
  int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return 4 * std::max<int64_t>(cache, int64_t(64) << 20);
}

struct Case {
  Json facts;
  double bytes = 0;
  std::function<void()> run;
  std::vector<double> gb_s = {}, of_triad = {};

  double measure() {
    double begin = now_ms();
    run();
    gb_s.push_back(bytes / (now_ms() - begin) * 1e-6);
    return gb_s.back();
  }
  Json row() const {
    Json row = facts;
    row["gb_s"] = median(gb_s);
    if (!of_triad.empty()) row["of_triad"] = median(of_triad);
    return row;
  }
};

// a <- b + s c, with a, b and c the thirds of x. Counted as STREAM does: two reads and one write.
Case triad(const Tensor& x) {
  int64_t n = x.numel() / 3;
  float *a = x.data<float>(), *b = a + n, *c = b + n;
  return {{{"op", "triad"}}, 12 * double(n), [=] {
#pragma omp parallel for simd schedule(static)
            for (int64_t i = 0; i < n; i++) a[i] = b[i] + 0.5f * c[i];
          }};
}

float sum_of(int64_t n, const float* x) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += x[i];
  return sum;
}

Case read(const Tensor& x) {
  const int64_t piece = 65536, pieces = x.numel() / piece;
  const float* from = x.data<float>();
  return {{{"op", "read"}}, 4 * double(piece * pieces), [=] {
            float sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
            for (int64_t i = 0; i < pieces; i++) sum += sum_of(piece, from + i * piece);
            volatile float used = sum;
            (void)used;
          }};
}

// x <- x + sum_j w (theirs[j] - own): x is read and written, what came is read; and own, unless it
// is x. What was sent are parts of `wires`.
Case mix(const Tensor& all, const Tensor& wires, int64_t neighbours) {
  int64_t n = wires.numel() / (neighbours + 1);
  auto part = [=](int64_t j) { return wires.slice(j * n, (j + 1) * n); };
  Tensor x = all.slice(0, n), own = part(0);
  std::vector<Tensor> theirs;
  for (int64_t j = 1; j <= neighbours; j++) theirs.push_back(part(j));
  std::vector<double> weights(theirs.size(), 1 / double(neighbours + 1));
  int64_t reads = neighbours + (own.raw() == x.raw() ? 0 : 1);
  Json facts = {{"op", "mix"}, {"wire", name_of(wires.dtype())}, {"neighbours", neighbours}};
  return {facts, double(n) * double(8 + reads * int64_t(size_of(wires.dtype()))),
          [=]() mutable { ops::mix(x, own, theirs, weights, x); }};
}

Case quantize(const Tensor& x, Tensor packed) {
  return {{{"op", "quantize"}}, double(x.bytes() + packed.bytes()), [=]() mutable {
            ops::quantize(x, packed);
          }};
}

Case dequantize(Tensor x, const Tensor& packed) {
  return {{{"op", "dequantize"}}, double(x.bytes() + packed.bytes()), [=]() mutable {
            ops::dequantize(packed, x);
          }};
}

}  // namespace

std::string bench_mixing(const MixingBench& wanted) {
  use_threads(wanted.threads);
  int64_t bytes = wanted.mib > 0 ? wanted.mib << 20 : four_caches();
  Tensor x({bytes / 4}), halves({bytes / 4}, DType::bf16);
  Tensor packed({packed_words(bytes / 4)}, DType::i32);
  ops::random_uniform(1, 0, -1, 1, x);
  ops::copy(x, halves);
  Case stream = triad(x);
  std::vector<Case> cases = {read(x)};
  for (const Tensor& wires : {x, halves}) {
    for (int64_t neighbours : {1, 2, 3, 7}) cases.push_back(mix(x, wires, neighbours));
  }
  cases.push_back(quantize(x, packed));
  cases.push_back(dequantize(x, packed));
  for (int64_t round = -1; round < wanted.rounds; round++) {
    for (Case& c : cases) {
      double triad = stream.measure();
      c.of_triad.push_back(c.measure() / triad);
    }
    if (round >= 0) continue;  // to warm up
    stream.gb_s.clear();
    for (Case& c : cases) c.gb_s.clear(), c.of_triad.clear();
  }
  Json result = {
      {"threads", omp_get_max_threads()},
      {"bytes", bytes},
      {"rounds", wanted.rounds},
      {"revision", revision()},
      {"bytes_are",
       "those that the formula reads and writes; a triad also reads the lines it writes, which "
       "STREAM does not count, and an operation in place need not: it can be faster than a triad"},
      {"rows", Json::array({stream.row()})},
  };
  for (const Case& c : cases) result["rows"].push_back(c.row());
  return result.dump(1) + "\n";
}

}  // namespace murmur
