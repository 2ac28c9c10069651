// tests/cuda/memory_test.cpp - storage on the device, numbers on their way, captured work.
#include "tensor/cuda/runtime.h"
#include "tensor/ops.h"
#include "tests/cuda/parity.h"

using namespace murmur;

TEST_CASE("fill and copy: every pair of types, contiguous or not, to the device and back") {
  for (DType from : {DType::f32, DType::f64, DType::bf16}) {
    for (DType to : {DType::f32, DType::f64, DType::bf16}) {
      Tensor x = random({5, 33}, from, 1), want({5, 20}, to), part = x.columns(3, 23);
      ops::copy(part, want);
      Tensor device = poisoned({5, 20}, to), wide = poisoned({5, 40}, to);
      ops::copy(part, device);  // host, strided, converted
      CHECK(same_bits(device, want));
      Tensor columns = wide.columns(10, 30);
      ops::copy(on_gpu(x).columns(3, 23), columns);  // on the device, strided on both sides
      Tensor host({5, 20}, to);
      ops::copy(columns, host);  // the CPU engine hands it over
      CHECK(same_bits(host, want));
      CHECK(std::isnan(to_vector(wide)[9]));
      CHECK(std::isnan(to_vector(wide)[30]));
    }
  }
  Tensor tokens({3, 4}, DType::i32);
  for (int i = 0; i < 12; i++) tokens.data<int32_t>()[i] = 7 * i - 5;
  CHECK(same_bits(on_gpu(tokens), tokens));
  Tensor strided = on_gpu(random({4, 8}, DType::f32, 1)), middle = strided.columns(2, 5);
  ops::fill(middle, 2.5);
  std::vector<double> values = to_vector(strided);
  CHECK(values[2] == 2.5);
  CHECK(values[4] == 2.5);
  CHECK(values[1] != 2.5);
  CHECK(values[5] != 2.5);
}

TEST_CASE("copies on the device, of elements that move several at a time, and fills") {
  const DType all[] = {DType::f32, DType::f64, DType::bf16, DType::i32};
  for (DType from : all) {
    for (DType to : all) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      Tensor numbers({70}, DType::f32), x({70}, from), want({70}, to);
      ops::random_uniform(1, 2, -100, 100, numbers);
      ops::copy(numbers, x);
      ops::copy(x, want);
      Tensor device({70}, to, Device::cuda), tail = device.slice(60, 70);
      ops::fill(device, 3);
      ops::copy(on_gpu(x), device);
      CHECK(same_bits(device, want));
      ops::fill(tail, 3);
      CHECK(to_vector(device)[59] == to_vector(want)[59]);
      CHECK(to_vector(device)[69] == 3);
    }
  }
}

TEST_CASE("more than all staging slots can travel, and the source may change at once") {
  Tensor x = random({20, 1 << 20}, DType::f32, 1), kept = random({20, 1 << 20}, DType::f32, 1),
         device({20, 1 << 20}, DType::f32, Device::cuda);
  ops::copy(x, device);
  ops::fill(x, 0);
  CHECK(same_bits(device, kept));
}

TEST_CASE("a number read later is the number it was") {
  Tensor x({1}, DType::f32, Device::cuda);
  std::vector<std::function<double()>> later;
  for (int i = 0; i < 5; i++) {
    ops::fill(x, i + 0.5);
    later.push_back(gpu().read_later(x));
  }
  ops::fill(x, -1);
  for (int i = 0; i < 5; i++) CHECK(later[size_t(i)]() == i + 0.5);
  Tensor two({2}, DType::f32, Device::cuda);
  CHECK_THROWS_AS(gpu().read_later(two), Error);
}

TEST_CASE("captured work is not done by capturing, and is done anew by every call") {
  Tensor x = on_gpu(Tensor::of({1, 2, 3}, {3})), y = on_gpu(Tensor::of({0, 0, 0}, {3})),
         by = on_gpu(Tensor::of({2}, {1}));
  auto work = [&] {
    Tensor between({3}, DType::f32, Device::cuda);
    ops::scale({1, by}, x, {between});
    ops::scale(1, between, {y, true});
  };
  work();
  auto replay = gpu().capture(work);
  CHECK(to_vector(y) == std::vector<double>{2, 4, 6});
  // Tensors made after the capture must not lie where the graph works.
  Tensor other = on_gpu(Tensor::of({7, 8, 9}, {3})), another = on_gpu(Tensor::of({7, 8, 9}, {3}));
  ops::fill(by, 10);
  int64_t before = cuda::counters().launches;
  replay();
  CHECK(cuda::counters().launches - before == 1);
  replay();
  CHECK(to_vector(y) == std::vector<double>{22, 44, 66});
  CHECK(to_vector(other) == std::vector<double>{7, 8, 9});
  CHECK(to_vector(another) == std::vector<double>{7, 8, 9});
}

TEST_CASE("work that fails while it is captured leaves the engine usable") {
  CHECK_THROWS_AS(gpu().capture([] { throw Error("stop"); }), Error);
  Tensor x = on_gpu(Tensor::of({1, 2, 3}, {3}));
  ops::fill(x, 4);
  CHECK(to_vector(x) == std::vector<double>{4, 4, 4});
}

TEST_CASE("an error says what was being done, with which shapes") {
  Tensor x({3, 4}, DType::f32, Device::cuda), y({3, 5}, DType::f32, Device::cuda);
  try {
    Op<void(const Tensor&, Tensor&)> norm{
        "norm", nullptr, nullptr,
        [](const Tensor&, Tensor&) { cuda::check_call(cudaErrorInvalidValue, "cudaMemcpyAsync"); }};
    norm(x, y);
    FAIL("no error");
  } catch (const Error& e) {
    std::string text = e.what();
    CAPTURE(text);
    CHECK(text.find("norm: fp32 (3, 4) cuda, fp32 (3, 5) cuda: cudaMemcpyAsync: ") == 0);
  }
}
