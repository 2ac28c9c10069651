// tensor/ops/gather.cpp - rows of a table by token: y[b, t] = table[tokens[b, t]] (+ positions[t]).
#include <string>

#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"

namespace murmur::MURMUR_DEVICE {
namespace {

// Rows of a table, as the tokens say. A token outside it gives NaN: a kernel can throw nothing.
template <class T>
struct Chosen : Strided<T> {
  const int32_t* tokens;
  uint32_t rows;
  KERNEL OptionalIn<T> at(Row r) const {
    uint32_t k = uint32_t(tokens[r.index]);
    return {{k < rows ? this->p + k * this->stride : nullptr, this->stride}, Compute<T>(NAN)};
  }
};

struct Embed {
  template <class C>
  KERNEL void operator()(C value, C& y) const {
    y = value;
  }
  template <class C>
  KERNEL void operator()(C value, C position, C& y) const {
    y = value + position;
  }
};

}  // namespace

void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions, Tensor& y) {
  check(y.numel() == tokens.numel() * table.cols() && y.dtype() == table.dtype() && y.contiguous(),
        [&] { return text(table) + " into " + text(y); });
  int64_t times = tokens.cols();
  check(!positions || (positions.cols() == table.cols() && positions.rows() >= times), [&] {
    return std::to_string(times) + " positions wanted, table of positions " + text(positions);
  });
  for (int64_t i = 0; table.device() == Device::cpu && i < tokens.numel(); i++) {
    int32_t token = tokens.data<int32_t>()[i];
    check(token >= 0 && token < table.rows(), [&] {
      return "token " + std::to_string(token) + " outside a table of " +
             std::to_string(table.rows()) + " rows";
    });
  }
  Extent e{tokens.numel(), table.cols()};
  dispatch_kernel(table.dtype(), [&](auto type) {
    using T = decltype(type);
    Chosen<T> chosen{
        {table.data<T>(), table.row_stride()}, tokens.data<int32_t>(), uint32_t(table.rows())};
    Out<T> to{{y.data<T>(), e.cols}};
    if (!positions) return for_each_element(e, Embed{}, chosen, to);
    Broadcast<T> position{{positions.data<T>(), positions.row_stride()}, uint32_t(times)};
    for_each_element(e, Embed{}, chosen, position, to);
  });
}

}  // namespace murmur::MURMUR_DEVICE
