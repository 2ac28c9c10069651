// dist/store.cpp - one listener, one poll loop, one question and one answer a rank.
//
//   question: magic, size of the world, rank       answer: magic, kind, length, bytes
//
// All numbers are 32 bits in network order. Kind 0 is the value; anything else a sentence that says
// why there is none.
#include "dist/store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/check.h"

namespace murmur {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kMagic = 0x6d75726d;  // "murm"
constexpr size_t kQuestion = 12, kAnswerHead = 12, kLongest = size_t(1) << 24;
constexpr uint32_t kValue = 0, kRefusal = 1;
constexpr auto kPatience =
    std::chrono::milliseconds(500);  // after the deadline, for the last words

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

Socket new_socket(int family) {
  Socket s(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return s;
}

std::string packed(std::initializer_list<uint32_t> numbers) {
  std::string bytes;
  for (uint32_t number : numbers) {
    uint32_t wire = htonl(number);
    bytes.append(reinterpret_cast<const char*>(&wire), sizeof wire);
  }
  return bytes;
}

uint32_t number_at(const std::string& bytes, size_t place) {
  uint32_t wire;
  std::memcpy(&wire, bytes.data() + 4 * place, sizeof wire);
  return ntohl(wire);
}

std::string answer(uint32_t kind, const std::string& text) {
  return packed({kMagic, kind, uint32_t(text.size())}) + text;
}

// Adds what has arrived, up to `most` bytes in all. False when the other side is gone.
bool read_some(const Socket& socket, std::string& bytes, size_t most) {
  char part[4096];
  while (bytes.size() < most) {
    ssize_t n = recv(socket.fd(), part, std::min(sizeof part, most - bytes.size()), 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    bytes.append(part, size_t(n));
  }
  return true;
}

// Takes what could be sent off the front. False when the other side is gone.
bool write_some(const Socket& socket, std::string& bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    bytes.erase(0, size_t(n));
  }
  return true;
}

class Meeting {
 public:
  explicit Meeting(const Rendezvous& at)
      : at_(at),
        place_(at.address.find(':') == std::string::npos
                   ? fmt::format("{}:{}", at.address, at.port)
                   : fmt::format("[{}]:{}", at.address, at.port)),
        end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(at.deadline))) {}

  std::string serve(const std::string& value);
  std::string fetch();

 private:
  struct Guest {
    Socket socket;
    int rank = -1;  // not known yet
    std::string question, answer = {};
    bool leaving = false;  // when its answer is sent
  };

  bool late() const { return Clock::now() >= end_; }
  int milliseconds_left() const {
    double left = std::chrono::duration<double, std::milli>(end_ - Clock::now()).count();
    return int(std::clamp(std::ceil(left), 0.0, 1e6));
  }
  Socket listener() const;
  void listen_to(Guest& guest);
  bool handle(Guest& guest);  // false: it has gone
  void send_to_all(const std::string& text);
  bool all_here() const;
  std::string who_is_missing() const;

  Socket connect_to(const addrinfo& to);
  std::string ask(const Socket& socket);  // the whole answer, or nothing where rank 0 went away
  [[noreturn]] void nobody_there(const std::string& why) const;

  Rendezvous at_;
  std::string place_;
  Clock::time_point end_;
  std::vector<Guest> guests_;
  std::set<int> came_ = {0};  // at some time
};

// On every address of this host, since a name may mean another one here than elsewhere.
Socket Meeting::listener() const {
  int error = 0, on = 1, off = 0;
  for (int family : {AF_INET6, AF_INET}) {
    Socket s = new_socket(family);
    sockaddr_storage any = {};
    any.ss_family = sa_family_t(family);
    auto& port = family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(any).sin6_port
                                    : reinterpret_cast<sockaddr_in&>(any).sin_port;
    port = htons(uint16_t(at_.port));
    socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    if (s) {
      setsockopt(s.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      if (family == AF_INET6) setsockopt(s.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (s && bind(s.fd(), reinterpret_cast<sockaddr*>(&any), size) == 0 &&
        listen(s.fd(), SOMAXCONN) == 0) {
      return s;
    }
    error = errno;
    if (error == EADDRINUSE) break;
  }
  throw Error(fmt::format("rendezvous: rank 0 cannot listen at port {} ({}): {}", at_.port, place_,
                          std::strerror(error)));
}

bool Meeting::all_here() const {
  return 1 + std::count_if(guests_.begin(), guests_.end(),
                           [](const Guest& guest) { return guest.rank > 0 && !guest.leaving; }) ==
         at_.size;
}

// A rank that came and has given up since is not the one that was missing.
std::string Meeting::who_is_missing() const {
  std::vector<int> missing;
  for (int rank = 0; rank < at_.size; rank++) {
    if (!came_.count(rank)) missing.push_back(rank);
  }
  std::string said = fmt::format("rendezvous: {} of {} ranks came to {} within {} s", came_.size(),
                                 at_.size, place_, at_.deadline);
  if (missing.empty()) return said + ", but some left before the last one came";
  return fmt::format("{}; rank{} {} {} missing", said, missing.size() == 1 ? "" : "s",
                     fmt::join(missing, ", "), missing.size() == 1 ? "is" : "are");
}

// The question is whole: a rank of this world, of another one, or a stranger.
void Meeting::listen_to(Guest& guest) {
  uint32_t size = number_at(guest.question, 1), rank = number_at(guest.question, 2);
  auto refuse = [&](const std::string& why) {
    guest.answer = answer(kRefusal, why);
    guest.leaving = true;
  };
  if (number_at(guest.question, 0) != kMagic) {
    guest.leaving = true;
  } else if (size != uint32_t(at_.size)) {
    refuse(
        fmt::format("rendezvous: the world at {} has {} ranks, that of rank {} has {}; is "
                    "another run using this port?",
                    place_, at_.size, rank, size));
  } else if (rank == 0 || rank >= size) {
    refuse(fmt::format("rendezvous: there is a rank 0 at {} already; rank {} of {} cannot come",
                       place_, rank, size));
  } else {
    for (const Guest& other : guests_) {
      if (other.rank == int(rank))
        return refuse(fmt::format("rendezvous: a rank {} has come to {} already", rank, place_));
    }
    guest.rank = int(rank);
    came_.insert(guest.rank);
  }
}

bool Meeting::handle(Guest& guest) {
  bool here = true;
  if (guest.question.size() < kQuestion) {
    here = read_some(guest.socket, guest.question, kQuestion);
    if (guest.question.size() == kQuestion) listen_to(guest);
  } else if (guest.answer.empty()) {
    std::string more;  // a rank that has asked says nothing more: this finds out that it left
    here = read_some(guest.socket, more, 1) && more.empty();
  }
  if (!here || !write_some(guest.socket, guest.answer)) return false;
  return !guest.leaving || !guest.answer.empty();
}

// What was said must be taken by the ranks that are here, or they are gone, or it is late.
void Meeting::send_to_all(const std::string& text) {
  for (Guest& guest : guests_) {
    if (guest.leaving || guest.rank < 0) continue;
    guest.answer = text;
    guest.leaving = true;
  }
  std::erase_if(guests_, [](const Guest& guest) { return !guest.leaving; });
  Clock::time_point end = std::max(end_, Clock::now() + kPatience);
  while (!guests_.empty() && Clock::now() < end) {
    std::vector<pollfd> waits;
    for (const Guest& guest : guests_) waits.push_back({guest.socket.fd(), POLLOUT, 0});
    poll(waits.data(), waits.size(), 20);
    std::erase_if(guests_, [&](Guest& guest) { return !handle(guest); });
  }
}

std::string Meeting::serve(const std::string& value) {
  check(value.size() <= kLongest, "rendezvous: the value is too long");
  Socket door = listener();
  while (!all_here()) {
    if (late()) {
      send_to_all(answer(kRefusal, who_is_missing()));
      throw Error(who_is_missing());
    }
    std::vector<pollfd> waits = {{door.fd(), POLLIN, 0}};
    for (const Guest& guest : guests_)
      waits.push_back({guest.socket.fd(), short(guest.answer.empty() ? POLLIN : POLLOUT), 0});
    poll(waits.data(), waits.size(), milliseconds_left());
    std::erase_if(guests_, [&](Guest& guest) { return !handle(guest); });
    int fd = accept4(door.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) guests_.push_back({Socket(fd), -1, {}});
  }
  send_to_all(answer(kValue, value));
  return value;
}

Socket Meeting::connect_to(const addrinfo& to) {
  Socket s = new_socket(to.ai_family);
  if (!s || connect(s.fd(), to.ai_addr, to.ai_addrlen) == 0) return s;
  if (errno != EINPROGRESS) return Socket();
  pollfd wait = {s.fd(), POLLOUT, 0};
  int error = ETIMEDOUT;
  socklen_t size = sizeof error;
  if (poll(&wait, 1, milliseconds_left()) == 1)
    getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
  errno = error;
  return error == 0 ? std::move(s) : Socket();
}

std::string Meeting::ask(const Socket& socket) {
  std::string question = packed({kMagic, uint32_t(at_.size), uint32_t(at_.rank)}), bytes;
  size_t most = kAnswerHead;
  while (bytes.size() < most) {
    if (!write_some(socket, question)) return {};
    bool here = read_some(socket, bytes, most);
    // A stranger is recognised by its first bytes, however few it says.
    if (!bytes.empty() &&
        bytes.compare(0, 4, packed({kMagic}), 0, std::min<size_t>(4, bytes.size())) != 0) {
      throw Error(
          fmt::format("rendezvous: what answers at {} is no rank 0 of murmur; choose another "
                      "port",
                      place_));
    }
    if (most == kAnswerHead && bytes.size() == most) {
      size_t length = number_at(bytes, 2);
      check(length <= kLongest, [&] { return "rendezvous: no sense in what " + place_ + " says"; });
      most += length;
      continue;
    }
    if (bytes.size() == most) break;
    if (!here) return {};
    // Rank 0 may have begun to wait a little later, and will say who is missing.
    if (Clock::now() >= end_ + kPatience) {
      throw Error(
          fmt::format("rendezvous: rank {} came to {}, but not all {} ranks did within {} s",
                      at_.rank, place_, at_.size, at_.deadline));
    }
    pollfd wait = {socket.fd(), short(question.empty() ? POLLIN : POLLIN | POLLOUT), 0};
    poll(&wait, 1, std::max(20, milliseconds_left()));
  }
  return bytes;
}

void Meeting::nobody_there(const std::string& why) const {
  throw Error(fmt::format("rendezvous: rank {} of {} found no rank 0 at {} within {} s: {}",
                          at_.rank, at_.size, place_, at_.deadline, why));
}

// Rank 0 may come later than this one: tries again until the deadline.
std::string Meeting::fetch() {
  std::string why = "no time was left to look";
  do {
    addrinfo hints = {}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    int failed = getaddrinfo(at_.address.c_str(), std::to_string(at_.port).c_str(), &hints, &found);
    std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, freeaddrinfo);
    if (failed) why = gai_strerror(failed);
    if (failed == EAI_NONAME) nobody_there(why);
    for (const addrinfo* to = all.get(); to; to = to->ai_next) {
      Socket socket = connect_to(*to);
      if (!socket) {
        why = std::strerror(errno);
        continue;
      }
      std::string bytes = ask(socket);
      if (bytes.empty()) {
        why = "the connection was closed";
        continue;
      }
      std::string text = bytes.substr(kAnswerHead);
      if (number_at(bytes, 1) != kValue) throw Error(text);
      return text;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min(50, milliseconds_left())));
  } while (!late());
  nobody_there(why);
}

}  // namespace

std::string exchange_from_zero(const Rendezvous& at, const std::string& value) {
  check(at.rank >= 0 && at.rank < at.size,
        [&] { return fmt::format("rendezvous: rank {} of {} ranks", at.rank, at.size); });
  if (at.size == 1) return value;
  if (at.port < 1 || at.port > 65535)
    throw InputError(fmt::format("rendezvous: port {} is not between 1 and 65535", at.port));
  Meeting meeting(at);
  return at.rank == 0 ? meeting.serve(value) : meeting.fetch();
}

}  // namespace murmur
