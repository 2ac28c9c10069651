// tests/dist/store_test.cpp - ranks are threads, and all of it happens on the loopback interface.
#include "dist/store.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

#include "tensor/check.h"

using namespace murmur;

namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

sockaddr_in loopback(int port) {
  sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(uint16_t(port));
  return at;
}

// A socket that listens at a port the system chose, to be closed or kept.
struct Listener {
  Listener() : fd(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at = loopback(0);
    socklen_t size = sizeof at;
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&at), size) == 0);
    REQUIRE(listen(fd, 8) == 0);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port = ntohs(at.sin_port);
  }
  ~Listener() { close(fd); }
  int fd, port = 0;
};

int free_port() { return Listener().port; }

// Connects as anybody might, once somebody listens.
int stranger(int port) {
  sockaddr_in at = loopback(port);
  for (int i = 0; i < 500; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0) return fd;
    close(fd);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL("nobody listens");
  return -1;
}

// What rank r got, or the error it ended with.
std::string come(const Rendezvous& at, const std::string& value) {
  try {
    return exchange_from_zero(at, value);
  } catch (const Error& error) {
    return std::string("Error: ") + error.what();
  }
}

std::vector<std::string> meet(const std::vector<int>& ranks, int size, const std::string& address,
                              int port, double deadline, const std::string& value) {
  std::vector<std::string> got(ranks.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks.size(); i++) {
    threads.emplace_back([&, i] {
      got[i] = come({ranks[i], size, address, port, deadline}, ranks[i] == 0 ? value : "not mine");
    });
  }
  for (std::thread& t : threads) t.join();
  return got;
}

bool contains(const std::string& text, const std::string& part) {
  bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

}  // namespace

TEST_CASE("what rank 0 brings reaches all ranks, whoever is first") {
  const std::string id("\0\1 binary \xff", 11);
  CHECK(meet({0}, 1, "nowhere", 0, 1, id) == std::vector<std::string>{id});
  for (int size : {2, 3, 8}) {
    std::vector<int> ranks;
    for (int r = size - 1; r >= 0; r--) ranks.push_back(r);
    for (const char* address : {"127.0.0.1", "localhost"})
      CHECK(meet(ranks, size, address, free_port(), 10, id) ==
            std::vector<std::string>(size_t(size), id));
  }
  const std::string large(3 << 20, 'x');
  CHECK(meet({0, 1, 2}, 3, "127.0.0.1", free_port(), 10, large)[2] == large);
  CHECK(meet({0, 1}, 2, "127.0.0.1", free_port(), 10, "") == std::vector<std::string>(2, ""));
}

TEST_CASE("a rank that is missing is named within the deadline, to all who came") {
  auto begin = std::chrono::steady_clock::now();
  int port = free_port();
  std::vector<std::string> got = meet({0, 1}, 4, "127.0.0.1", port, 0.5, "id");
  CHECK(seconds_since(begin) < 3);
  CHECK(got[0] == "Error: rendezvous: 2 of 4 ranks came to 127.0.0.1:" + std::to_string(port) +
                      " within 0.5 s; ranks 2, 3 are missing");
  CHECK(got[1] == got[0]);
  got = meet({2}, 3, "127.0.0.1", port, 0.3, "");
  CHECK(contains(got[0], "Error: rendezvous: rank 2 of 3 found no rank 0 at 127.0.0.1:"));
  CHECK(contains(got[0], "within 0.3 s: Connection refused"));
  got = meet({1}, 2, "no-such-host.invalid", port, 0.3, "");
  CHECK(contains(got[0], "no-such-host.invalid"));
}

TEST_CASE("a rank of another world is refused, and its own world goes on") {
  int port = free_port();
  std::vector<std::string> got(2);
  std::thread world([&] { got = meet({0, 1}, 3, "127.0.0.1", port, 10, "id"); });
  close(stranger(port));
  CHECK(contains(come({1, 2, "127.0.0.1", port, 5}, ""), "has 3 ranks, that of rank 1 has 2"));
  CHECK(come({2, 3, "127.0.0.1", port, 5}, "") == "id");
  world.join();
  CHECK(got == std::vector<std::string>(2, "id"));
}

TEST_CASE("the second of two equal ranks is refused") {
  int port = free_port();
  std::string first, second;
  std::thread zero([&] { first = come({0, 3, "127.0.0.1", port, 5}, "id"); });
  std::vector<std::string> ones(2);
  std::thread two([&] { ones = meet({1, 1}, 3, "127.0.0.1", port, 5, ""); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(come({2, 3, "127.0.0.1", port, 5}, "") == "id");
  zero.join();
  two.join();
  CHECK(((ones[0] == "id") != (ones[1] == "id")));
  CHECK(contains(ones[0] + ones[1], "a rank 1 has come to 127.0.0.1:"));
}

TEST_CASE("garbage and silence at the door are ignored") {
  int port = free_port();
  std::vector<std::string> got;
  std::thread world([&] { got = meet({0}, 2, "127.0.0.1", port, 10, "id"); });
  int silent = stranger(port), browser = stranger(port), gone = stranger(port);
  CHECK(send(browser, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL) == 18);
  CHECK(send(gone, "abc", 3, MSG_NOSIGNAL) == 3);
  close(gone);
  CHECK(come({1, 2, "127.0.0.1", port, 10}, "") == "id");
  world.join();
  CHECK(got[0] == "id");
  close(silent);
  close(browser);
}

TEST_CASE("a stranger in rank 0's place is recognised, talking or not, and a taken port said") {
  Listener other;
  std::thread speaker([&] {
    int fd = accept(other.fd, nullptr, nullptr);
    CHECK(send(fd, "HTTP/1.1 400 Bad Request\r\n", 26, MSG_NOSIGNAL) == 26);
    close(fd);
  });
  CHECK(contains(come({1, 2, "127.0.0.1", other.port, 5}, ""), "is no rank 0 of murmur"));
  speaker.join();
  auto begin = std::chrono::steady_clock::now();
  CHECK(
      contains(come({1, 2, "127.0.0.1", other.port, 0.3}, ""), "not all 2 ranks did within 0.3 s"));
  CHECK(seconds_since(begin) < 2);
  CHECK(contains(come({0, 2, "127.0.0.1", other.port, 5}, ""), "cannot listen at port"));
}

TEST_CASE("IPv6") {
  int probe = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 at = {};
  at.sin6_family = AF_INET6;
  at.sin6_addr = in6addr_loopback;
  bool there = probe >= 0 && bind(probe, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0;
  if (probe >= 0) close(probe);
  if (!there) {
    MESSAGE("skipped: no IPv6 here");
    return;
  }
  CHECK(meet({0, 1}, 2, "::1", free_port(), 10, "id") == std::vector<std::string>(2, "id"));
}
