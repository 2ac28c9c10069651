// tensor/cuda/rows.cu - operations along rows: softmax, cross entropy, q/k norm, rotary embedding.
#include <cfloat>

#include "tensor/checks.h"
#include "tensor/cuda/team.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/rope.h"
#include "tensor/ops/softmax.h"

namespace murmur::cuda {

template <class T>
struct SoftmaxRow {
  Rows<T> x, y;
  int64_t n;
  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    Softmax::forward(team, n, x.row(r), y.row(r));
  }
};

template <class T>
struct SoftmaxBackwardRow {
  Rows<T> y, dy, dx;
  int64_t n;
  bool accumulate;
  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    Softmax::backward(team, n, y.row(r), dy.row(r), dx.row(r), accumulate);
  }
};

// tensor/ops/cross_entropy.h for a block. Thread by thread m = max x and s = sum e^(x - m) grow as
// x comes in, and then dx = e^(x - m) / s. A thread meets only pieces it brought itself, without
// barriers. kShared: the row waits in shared memory, so that it is read once, and the gradient
// takes its place. A target outside the vocabulary makes its loss NaN: a kernel can throw nothing.
constexpr size_t kSharedRow = 100 * 1024;  // two rows to a multiprocessor

template <class T, bool kShared>
__global__ void __launch_bounds__(512, 2)
    cross_entropy_row(Rows<T> logits, int cols, int vocabulary, const int32_t* targets,
                      float* losses, bool to_gradient) {
  constexpr int N = kNeighbours<T>;
  constexpr float kLog2E = 1.44269504f;
  MURMUR_SHARED(bytes);
  Rows<T> row{logits.row(blockIdx.x)}, kept{kShared ? reinterpret_cast<T*>(bytes) : row.data};
  auto place_at = [=](int i) {
    return kShared ? Place{0, i, N, true} : place(0, i, cols, N, false);
  };
  auto without_padding = [=](float(&v)[N], int i) {
    for (int k = 0; k < N; k++) v[k] = i + k < vocabulary ? v[k] : -INFINITY;
  };
  int target = targets[blockIdx.x], step = 512 * N;
  bool valid = target >= 0 && target < vocabulary;
  float wanted = threadIdx.x == 0 && valid ? float(row.data[target]) : NAN;
  float m = -FLT_MAX, s = 0;  // finite, so that m - m is 0
#pragma unroll 4
  for (int i = threadIdx.x * N; i < cols; i += step) {
    Place p = place_at(i);
    float v[N], top = m;
    row.load(v, p);
    if (kShared) kept.store(v, p);
    without_padding(v, i);
    for (int k = 0; k < N; k++) top = fmaxf(top, v[k]);
    s *= exp2_fast((m - top) * kLog2E);
    for (int k = 0; k < N; k++) s += exp2_fast((v[k] - top) * kLog2E);
    m = top;
  }
  float all = BlockTeam::over_block(m, Max2{});
  s *= exp2_fast((m - all) * kLog2E);
  s = BlockTeam::over_block(s, Add2{});
  if (threadIdx.x == 0) losses[blockIdx.x] = logf(s) + (all - wanted);
  if (!to_gradient) return;
  float scale = 1 / s;
  for (int i = threadIdx.x * N; i < cols; i += step) {
    Place p = place_at(i);
    float v[N];
    kept.load(v, p);
    without_padding(v, i);
    for (int k = 0; k < N; k++)
      v[k] = exp2_fast((v[k] - all) * kLog2E) * scale - (i + k == target ? 1.f : 0.f);
    row.store(v, p);
  }
}

// The heads of packed rows q, k, v as rows of their own, counted through all of them. `lanes`
// neighbouring lanes of a warp work on one together, with N of its elements in registers each.
struct HeadRows {
  static constexpr int N = 8, kLargest = 32 * N;
  uint32_t heads, size, lanes;
  int64_t count;
  bool wide;

  struct Mine {
    Place place;  // of N elements; none where the thread has no head
    uint32_t in_row;
    bool is_value;      // it is a v: passes through
    int64_t statistic;  // where mean and rstd of a q or k lie
  };
  __device__ Mine mine(uint32_t length) const {  // of the first `length` elements of a head
    int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, head = thread / lanes;
    uint32_t row = uint32_t(head / (3 * heads)), in_row = uint32_t(head % (3 * heads));
    Place p = place(head, thread % lanes * N, length, N, wide);
    if (head >= count) p.count = 0, p.whole = false;
    return {p, row, in_row >= 2 * heads, 2 * (int64_t(row) * 2 * heads + in_row)};
  }
};

template <class T>
__global__ void __launch_bounds__(256)
    qk_norm_heads(HeadRows heads, Rows<T> x, Rows<T> y, float* statistics) {
  constexpr int N = HeadRows::N;
  auto mine = heads.mine(heads.size);
  float v[N], normed[N], stats[2];
  const float* none = nullptr;
  x.load(v, mine.place);
  RmsNorm::forward(LaneTeam<N>{int(heads.lanes)}, heads.size, v, none, none, normed, stats);
  for (int i = 0; i < N; i++) v[i] = mine.is_value ? v[i] : normed[i];
  y.store(v, mine.place);
  if (mine.is_value || mine.place.at || mine.place.count <= 0) return;
  statistics[mine.statistic] = stats[0];
  statistics[mine.statistic + 1] = stats[1];
}

template <class T>
__global__ void __launch_bounds__(256)
    qk_norm_backward_heads(HeadRows heads, Rows<T> x, const float* statistics, Rows<T> dy,
                           Rows<T> dx, bool accumulate) {
  constexpr int N = HeadRows::N;
  auto mine = heads.mine(heads.size);
  float v[N], d[N], normed[N], sum[N], stats[2] = {};
  const float* none = nullptr;
  x.load(v, mine.place);
  dy.load(d, mine.place);
  dx.load_if(accumulate, sum, mine.place);
  if (!mine.is_value && mine.place.count > 0) stats[1] = statistics[mine.statistic + 1];
  RmsNorm::backward(LaneTeam<N>{int(heads.lanes)}, heads.size, v, none, stats, d, normed, false);
  for (int i = 0; i < N; i++) sum[i] += mine.is_value ? d[i] : normed[i];
  dx.store(sum, mine.place);
}

// A thread has elements of the first half of a head and their partners in the second.
template <class T>
__global__ void __launch_bounds__(256)
    rope_heads(HeadRows heads, Rows<T> x, Rows<float> angles, uint32_t steps, float direction,
               Rows<T> y, bool accumulate) {
  constexpr int N = HeadRows::N;
  uint32_t half = heads.size / 2;
  auto mine = heads.mine(half);
  Place angle = mine.place;
  angle.row = mine.in_row % steps;
  float v[2][N], turned[2][N], cosine[N], sine[N];
  auto second = [=](Rows<T> rows) { return Rows<T>{rows.data + half, rows.stride}; };
  x.load(v[0], mine.place);
  second(x).load(v[1], mine.place);
  y.load_if(accumulate, turned[0], mine.place);
  second(y).load_if(accumulate, turned[1], mine.place);
  if (mine.is_value) {
    for (int i = 0; i < 2 * N; i++) turned[i / N][i % N] += v[i / N][i % N];
  } else {
    angles.load(cosine, angle);
    Rows<float>{angles.data + half, angles.stride}.load(sine, angle);
    Rope::head(LaneTeam<N>{1}, N, v[0], cosine, sine, direction, turned[0], true);
  }
  y.store(turned[0], mine.place);
  second(y).store(turned[1], mine.place);
}

namespace {

// Lanes for `length` elements of a head. wide: may they be moved N at a time, in all these tensors?
template <class T>
HeadRows heads_of(int64_t heads, const Tensor& qkv, int64_t length,
                  std::initializer_list<Rows<T>> all) {
  check(length <= HeadRows::kLargest, "heads larger than 256 are not supported");
  HeadRows h{uint32_t(heads), uint32_t(qkv.cols() / (3 * heads)), 1, 3 * heads * qkv.rows(),
             length % HeadRows::N == 0};
  while (h.lanes * HeadRows::N < length) h.lanes *= 2;
  for (const Rows<T>& rows : all) h.wide = h.wide && rows.wide(HeadRows::N);
  return h;
}
template <class... P, class... A>
void launch_heads(void (*kernel)(HeadRows, P...), const HeadRows& heads, const A&... args) {
  launch(kernel, unsigned(ceil_div(heads.count * heads.lanes, 256)), 256, 0, heads, args...);
}
// The heads of a packed tensor.
template <class T>
Rows<T> head_rows(int64_t heads, const Tensor& qkv) {
  return {qkv.data<T>(), qkv.cols() / (3 * heads)};
}

}  // namespace

void softmax(const Tensor& x, Tensor& y) {
  check_same(x, y);
  dispatch_single(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch_rows(SoftmaxRow<T>{rows_of<T>(x), rows_of<T>(y), x.cols()}, x.rows(), x.cols());
  });
}

void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) {
  check_same(y, dy);
  check_same(y, dx.tensor);
  dispatch_single(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch_rows(SoftmaxBackwardRow<T>{rows_of<T>(y), rows_of<T>(dy), rows_of<T>(dx.tensor),
                                      y.cols(), dx.accumulate},
                y.rows(), y.cols());
  });
}

void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                   int64_t vocabulary) {
  check_cross_entropy(logits, targets, losses, vocabulary);
  dispatch_single(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Rows<T> rows = rows_of<T>(logits);
    size_t bytes = size_t(logits.cols()) * sizeof(T);
    bool shared = bytes <= kSharedRow && logits.cols() % N == 0 && rows.wide(N);
    launch(shared ? cross_entropy_row<T, true> : cross_entropy_row<T, false>,
           unsigned(logits.rows()), 512, shared ? bytes : 0, rows, int(logits.cols()),
           int(vocabulary), targets.data<int32_t>(), losses.data<float>(), to_gradient);
  });
}

void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) {
  check_heads(heads, qkv);
  check_same(qkv, y);
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> from = head_rows<T>(heads, qkv), to = head_rows<T>(heads, y);
    launch_heads(qk_norm_heads<T>, heads_of<T>(heads, qkv, from.stride, {from, to}), from, to,
                 statistics.data<float>());
  });
}

void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics, const Tensor& dy,
                      Into dx) {
  check_heads(heads, qkv);
  check_same(qkv, dy);
  check_same(qkv, dx.tensor);
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> x = head_rows<T>(heads, qkv), d = head_rows<T>(heads, dy),
            to = head_rows<T>(heads, dx.tensor);
    launch_heads(qk_norm_backward_heads<T>, heads_of<T>(heads, qkv, x.stride, {x, d, to}), x,
                 statistics.data<float>(), d, to, dx.accumulate);
  });
}

void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles, Into y) {
  check_rope(heads, qkv, angles, y.tensor);
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    Rows<T> from = head_rows<T>(heads, qkv), to = head_rows<T>(heads, y.tensor);
    Rows<float> by{angles.data<float>(), from.stride};
    HeadRows h = heads_of<T>(heads, qkv, from.stride / 2, {from, to});
    h.wide = h.wide && by.wide(HeadRows::N);
    launch_heads(rope_heads<T>, h, from, by, uint32_t(qkv.shape()[-2]), float(direction), to,
                 y.accumulate);
  });
}

}  // namespace murmur::cuda
