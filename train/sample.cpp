// train/sample.cpp - temperature, top-k, and a counter-based draw.
#include "train/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/ops/philox.h"

namespace murmur {

int32_t draw(std::span<const double> logits, const SampleOptions& options, int64_t index) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  if (options.temperature == 0) return order[0];
  size_t kept = options.top_k > 0 ? std::min(order.size(), size_t(options.top_k)) : order.size();
  std::vector<double> weight(kept);
  for (size_t i = 0; i < kept; i++) {
    weight[i] =
        std::exp((logits[size_t(order[i])] - logits[size_t(order[0])]) / options.temperature);
  }
  double rest = std::accumulate(weight.begin(), weight.end(), 0.0) *
                double(Philox(options.seed, 0, uint64_t(index)).uniform(0));
  for (size_t i = 0; i + 1 < kept; i++) {
    rest -= weight[i];
    if (rest < 0) return order[i];
  }
  return order[kept - 1];
}

void sample(const Gpt& model, std::vector<int32_t> context, const SampleOptions& options,
            const std::function<void(int32_t)>& emit) {
  check(!context.empty(), "sample: the prompt has no token");
  NoGrad quiet;
  int64_t block = model.config().block_size;
  for (int64_t i = 0; i < options.tokens; i++) {
    int64_t seen = std::min(int64_t(context.size()), block);
    Tensor tokens({1, seen}, DType::i32);
    std::copy(context.end() - seen, context.end(), tokens.data<int32_t>());
    Tensor logits = model.logits(tokens).value();  // (1, T, V)
    std::vector<double> last = to_vector(logits.view({seen, logits.cols()}).slice(seen - 1, seen));
    last.resize(size_t(model.vocabulary()));  // without padding
    bool finite = std::all_of(last.begin(), last.end(), [](double x) { return std::isfinite(x); });
    check(finite,
          "sample: the model's logits are not finite: its weights have diverged; take an earlier "
          "checkpoint with --step");
    int32_t next = draw(last, options, i);
    context.push_back(next);
    emit(next);
  }
}

}  // namespace murmur
