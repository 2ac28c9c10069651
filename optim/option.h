// optim/option.h - a setting with a name, listed once: flags, configuration files, help,
// documentation and checks of range and kind all follow from it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

namespace murmur {

// What becomes of a run that goes on (train --resume) with another value than it began with.
enum class Change {
  said,     // it goes on with it, and says so
  free,     // no number of the run depends on it
  refused,  // it would be another run
};

struct Option {
  std::string name;
  std::variant<double*, int64_t*, bool*, std::string*> value;
  std::string summary;
  double low = -1e18, high = 1e18;        // numbers outside are refused
  std::vector<std::string> choices = {};  // of a text; empty: any
  // When given: it is called after the setting was assigned. For settings that stand for a set of
  // others, as "form" does; they are assigned before the others.
  std::function<void()> chosen = {};
  Change change = Change::said;
};

// Sets the option `prefix + name` from text. InputError for an unknown name (naming the nearest
// one), a value of the wrong kind, out of range, or not among the choices.
void set_option(const std::vector<Option>& options, const std::string& prefix,
                const std::string& name, const std::string& text);

std::string option_text(const Option& option);  // the current value, exact
// "number", "whole number", "true|false", "a|b|c", "text"
std::string option_kind(const Option& option);

}  // namespace murmur
