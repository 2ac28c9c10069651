// tensor/cuda/rows.cu - operations along rows: softmax, cross entropy, q/k norm, rotary embedding.
//
// Where a row has 16-byte pieces, a kernel of its own moves those; any other row is worked on by a
// block from global memory. The formulas are those of tensor/ops/ both ways.
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/team.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/rope.h"
#include "tensor/ops/softmax.h"

namespace murmur {
namespace cuda {

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

// A target outside the row makes its loss NaN: a kernel can throw nothing.
template <class T>
struct CrossEntropyRow {
  Rows<T> logits;
  int64_t n;
  const int32_t* targets;
  float* losses;
  bool to_gradient;
  __device__ void operator()(const BlockTeam& team, int64_t r) const {
    int64_t target = targets[r];
    bool valid = target >= 0 && target < n;
    float loss = CrossEntropy::row(team, n, logits.row(r), valid ? target : 0, to_gradient);
    // Only the thread that owns the target has read its logit before the gradient took its place.
    if (!valid) loss = NAN;
    if (threadIdx.x == (valid ? target : 0) % blockDim.x) losses[r] = loss;
  }
};

// The same with the row in shared memory: one read, and one write of the gradient in its place.
// Thread by thread m = max x and s = sum e^(x - m) grow as x comes in, and then dx = e^(x - m) / s.
// A thread meets only pieces it brought itself, without barriers.
constexpr int64_t kSharedRow = 100 * 1024;  // two rows to a multiprocessor

template <class T>
__global__ void __launch_bounds__(512, 2)
    cross_entropy_shared(Rows<T> logits, int cols, const int32_t* targets, float* losses,
                         bool to_gradient) {
  constexpr int N = kNeighbours<T>;
  constexpr float kLog2E = 1.44269504f;
  using Piece = Vector<T, N>;
  MURMUR_SHARED(bytes);
  T* kept = reinterpret_cast<T*>(bytes);
  T* row = logits.row(blockIdx.x);
  int target = targets[blockIdx.x], step = 512 * N;
  float m = -1e30f, s = 0;
#pragma unroll 4
  for (int i = threadIdx.x * N; i < cols; i += step) {
    Piece piece = Piece::at(row + i);
    piece.to(kept + i);
    float v[N], top = m;
    piece.unpack(v);
    for (int k = 0; k < N; k++) top = fmaxf(top, v[k]);
    s *= exp2_fast((m - top) * kLog2E);
    for (int k = 0; k < N; k++) s += exp2_fast((v[k] - top) * kLog2E);
    m = top;
  }
  float all = BlockTeam::over_block(m, Max2{});
  s *= exp2_fast((m - all) * kLog2E);
  s = BlockTeam::over_block(s, Add2{});  // its barriers show `kept` to all
  if (threadIdx.x == 0) {
    bool valid = target >= 0 && target < cols;
    losses[blockIdx.x] = valid ? logf(s) + all - float(kept[target]) : NAN;
  }
  if (!to_gradient) return;
  float scale = 1 / s;
  for (int i = threadIdx.x * N; i < cols; i += step) {
    float v[N];
    Piece::at(kept + i).unpack(v);
    for (int k = 0; k < N; k++) {
      v[k] = exp2_fast((v[k] - all) * kLog2E) * scale - (i + k == target ? 1.f : 0.f);
    }
    Piece::of(v).to(row + i);
  }
}

// The heads of packed rows q, k, v: what is done to one by a block, or with N of its elements in
// the registers of each of `lanes` neighbouring lanes. Heads are counted through all rows.
template <class T>
struct Heads {
  static constexpr int N = kNeighbours<T>;
  using Piece = Vector<T, N>;
  T *x, *y;
  uint32_t heads, size;
  bool accumulate;

  __device__ uint32_t row(uint32_t head) const { return head / (3 * heads); }
  __device__ bool is_value(uint32_t head) const { return head % (3 * heads) >= 2 * heads; }
  // Where mean and rstd of a q or k head lie.
  __device__ int64_t statistic(uint32_t head) const {
    return 2 * (int64_t(row(head)) * 2 * heads + head % (3 * heads));
  }
  // v passes through.
  __device__ void pass(const BlockTeam& team, const T* from, T* to) const {
    bool add = accumulate;
    team.each(size, [=](int64_t i) { to[i] = add ? T(float(to[i]) + float(from[i])) : from[i]; });
  }
};

template <class T>
struct QkNorm : Heads<T> {
  using Heads<T>::N, typename Heads<T>::Piece;
  float* statistics;

  __device__ void operator()(const BlockTeam& team, int64_t head) const {
    const float* none = nullptr;
    T *from = this->x + head * this->size, *to = this->y + head * this->size;
    if (this->is_value(head)) return this->pass(team, from, to);
    RmsNorm::forward(team, this->size, from, none, none, to, statistics + this->statistic(head));
  }
  __device__ void lane(uint32_t i, uint32_t lanes, bool inside) const {
    uint32_t head = i / lanes;
    bool value = this->is_value(head);
    float x[N] = {}, y[N], mean_rstd[2];
    const float* none = nullptr;
    if (inside) Piece::at(this->x + int64_t(i) * N).unpack(x);
    RmsNorm::forward(LaneTeam<N>{int(lanes)}, this->size, x, none, none, y, mean_rstd);
    if (!inside) return;
    for (int k = 0; k < N; k++) y[k] = value ? x[k] : y[k];
    Piece::of(y).to(this->y + int64_t(i) * N);
    if (value || i % lanes) return;
    statistics[this->statistic(head)] = mean_rstd[0];
    statistics[this->statistic(head) + 1] = mean_rstd[1];
  }
};

template <class T>
struct QkNormBackward : Heads<T> {  // y is dx
  using Heads<T>::N, typename Heads<T>::Piece;
  const T* dy;
  const float* statistics;

  __device__ void operator()(const BlockTeam& team, int64_t head) const {
    const float* none = nullptr;
    int64_t at = head * this->size;
    if (this->is_value(head)) return this->pass(team, dy + at, this->y + at);
    RmsNorm::backward(team, this->size, this->x + at, none, statistics + this->statistic(head),
                      dy + at, this->y + at, this->accumulate);
  }
  __device__ void lane(uint32_t i, uint32_t lanes, bool inside) const {
    uint32_t head = i / lanes;
    bool value = this->is_value(head);
    float x[N] = {}, d[N] = {}, old[N] = {}, dx[N], mean_rstd[2] = {};
    const float* none = nullptr;
    if (inside) {
      Piece::at(this->x + int64_t(i) * N).unpack(x);
      Piece::at(dy + int64_t(i) * N).unpack(d);
      if (this->accumulate) Piece::at(this->y + int64_t(i) * N).unpack(old);
      if (!value) mean_rstd[1] = statistics[this->statistic(head) + 1];
    }
    RmsNorm::backward(LaneTeam<N>{int(lanes)}, this->size, x, none, mean_rstd, d, dx, false);
    for (int k = 0; k < N; k++) old[k] += value ? d[k] : dx[k];
    if (inside) Piece::of(old).to(this->y + int64_t(i) * N);
  }
};

template <class T>
struct Rotate : Heads<T> {
  using Heads<T>::N, typename Heads<T>::Piece;
  const float* angles;
  uint32_t steps;
  float direction;

  __device__ const float* cosines(uint32_t head) const {
    return angles + int64_t(this->row(head) % steps) * this->size;
  }
  __device__ void operator()(const BlockTeam& team, int64_t head) const {
    int64_t at = head * this->size, half = this->size / 2;
    if (this->is_value(head)) return this->pass(team, this->x + at, this->y + at);
    const float* cosine = cosines(head);
    Rope::head(team, half, this->x + at, cosine, cosine + half, direction, this->y + at,
               this->accumulate);
  }
  // A lane has a piece of the first half of a head and its partner in the second.
  __device__ void lane(uint32_t i, uint32_t lanes, bool inside) const {
    if (!inside) return;
    uint32_t head = i / lanes;
    int64_t half = this->size / 2, at = i % lanes * N, first = int64_t(head) * this->size + at;
    float x[2 * N], y[2 * N] = {}, cosine[N], sine[N];
    Piece::at(this->x + first).unpack(x);
    Piece::at(this->x + first + half).unpack(x + N);
    if (this->accumulate) {
      Piece::at(this->y + first).unpack(y);
      Piece::at(this->y + first + half).unpack(y + N);
    }
    if (this->is_value(head)) {
      for (int k = 0; k < 2 * N; k++) y[k] += x[k];
    } else {
      Vector<float, N>::at(cosines(head) + at).unpack(cosine);
      Vector<float, N>::at(cosines(head) + at + half).unpack(sine);
      Rope::head(LaneTeam<N>{1}, N, x, cosine, sine, direction, y, this->accumulate);
    }
    Piece::of(y).to(this->y + first);
    Piece::of(y + N).to(this->y + first + half);
  }
};

template <class F>
__global__ void __launch_bounds__(256) heads_in_lanes(F f, uint32_t lanes, uint32_t pieces) {
  uint32_t i = blockIdx.x * 256 + threadIdx.x;
  f.lane(i, lanes, i < pieces);
}

}  // namespace cuda

using namespace cuda;

namespace {

void check_heads(const char* op, int64_t heads, const Tensor& qkv) {
  check(heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(), [&] {
    return std::string(op) + ": " + text(qkv) + " is no packed q, k, v of " +
           std::to_string(heads) + " heads";
  });
}

// Lanes for a head of n elements, where each has 16 bytes and they are neighbours in a warp; or 0.
template <class T>
int64_t lanes_of(int64_t n, std::initializer_list<const Tensor*> tensors) {
  constexpr int N = kNeighbours<T>;
  int64_t lanes = n / N;
  bool fits = n % N == 0 && lanes > 0 && lanes <= 32 && (lanes & (lanes - 1)) == 0;
  return fits && wide(N, {1, n}, tensors) ? lanes : 0;
}

template <class F>
void launch_heads(const F& f, int64_t lanes, int64_t heads) {
  int64_t pieces = heads * lanes;
  if (lanes == 0 || pieces > 0xffffff00) return launch_rows(f, heads, f.size);
  launch(heads_in_lanes<F>, unsigned(ceil_div(pieces, 256)), 256, 0, f, uint32_t(lanes),
         uint32_t(pieces));
}
template <class T>
Heads<T> heads_of(int64_t heads, const Tensor& x, const Tensor& y, bool accumulate) {
  return {x.data<T>(), y.data<T>(), uint32_t(heads), uint32_t(x.cols() / (3 * heads)), accumulate};
}

}  // namespace

void CudaEngine::softmax(const Tensor& x, Tensor& y) const {
  Doing doing("softmax", {&x, &y});
  check_same("softmax", x, y);
  dispatch_single(x.dtype(), "softmax", [&](auto type) {
    using T = decltype(type);
    launch_rows(SoftmaxRow<T>{rows_of<T>(x), rows_of<T>(y), x.cols()}, x.rows(), x.cols());
  });
}

void CudaEngine::softmax_backward(const Tensor& y, const Tensor& dy, Into dx) const {
  Doing doing("softmax backward", {&y, &dy, &dx.tensor});
  check_same("softmax backward", y, dy);
  check_same("softmax backward", y, dx.tensor);
  dispatch_single(y.dtype(), "softmax", [&](auto type) {
    using T = decltype(type);
    launch_rows(SoftmaxBackwardRow<T>{rows_of<T>(y), rows_of<T>(dy), rows_of<T>(dx.tensor),
                                      y.cols(), dx.accumulate},
                y.rows(), y.cols());
  });
}

void CudaEngine::cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses,
                               bool to_gradient) const {
  Doing doing("cross_entropy", {&logits, &targets, &losses});
  int64_t rows = logits.rows(), cols = logits.cols();
  check(targets.numel() == rows && losses.numel() == rows, [&] {
    return "cross_entropy: logits " + text(logits) + ", targets " + text(targets) + ", losses " +
           text(losses);
  });
  const int32_t* target = targets.data<int32_t>();
  float* loss = losses.data<float>();
  dispatch_single(logits.dtype(), "cross_entropy", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    int64_t bytes = cols * int64_t(sizeof(T));
    if (cols % N == 0 && bytes <= kSharedRow && wide(N, {rows, cols}, {&logits})) {
      launch(cross_entropy_shared<T>, unsigned(rows), 512, size_t(bytes), rows_of<T>(logits),
             int(cols), target, loss, to_gradient);
    } else {
      launch_rows(CrossEntropyRow<T>{rows_of<T>(logits), cols, target, loss, to_gradient}, rows,
                  cols);
    }
  });
}

void CudaEngine::qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) const {
  Doing doing("qk_norm", {&qkv, &y, &statistics});
  check_heads("qk_norm", heads, qkv);
  check_same("qk_norm", qkv, y);
  dispatch_single(qkv.dtype(), "qk_norm", [&](auto type) {
    using T = decltype(type);
    QkNorm<T> f{heads_of<T>(heads, qkv, y, false), statistics.data<float>()};
    launch_heads(f, lanes_of<T>(f.size, {&qkv, &y}), qkv.rows() * 3 * heads);
  });
}

void CudaEngine::qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics,
                                  const Tensor& dy, Into dx) const {
  Doing doing("qk_norm backward", {&qkv, &statistics, &dy, &dx.tensor});
  check_heads("qk_norm backward", heads, qkv);
  check_same("qk_norm backward", qkv, dy);
  check_same("qk_norm backward", qkv, dx.tensor);
  dispatch_single(qkv.dtype(), "qk_norm", [&](auto type) {
    using T = decltype(type);
    QkNormBackward<T> f{heads_of<T>(heads, qkv, dx.tensor, dx.accumulate), dy.data<T>(),
                        statistics.data<float>()};
    launch_heads(f, lanes_of<T>(f.size, {&qkv, &dy, &dx.tensor}), qkv.rows() * 3 * heads);
  });
}

void CudaEngine::rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
                      Into y) const {
  Doing doing("rope", {&qkv, &angles, &y.tensor});
  check_heads("rope", heads, qkv);
  check_same("rope", qkv, y.tensor);
  int64_t size = qkv.cols() / (3 * heads), steps = qkv.shape()[-2];
  check(size % 2 == 0 && angles.cols() == size && steps <= angles.rows(), [&] {
    return "rope: " + text(qkv) + " with angles " + text(angles) + " for heads of size " +
           std::to_string(size);
  });
  dispatch_single(qkv.dtype(), "rope", [&](auto type) {
    using T = decltype(type);
    Rotate<T> f{heads_of<T>(heads, qkv, y.tensor, y.accumulate), angles.data<float>(),
                uint32_t(steps), float(direction)};
    launch_heads(f, lanes_of<T>(size / 2, {&qkv, &y.tensor, &angles}), qkv.rows() * 3 * heads);
  });
}

}  // namespace murmur
