// train/list.h - every list of Murmur as a table: what `murmur list` prints and the docs hold.
#pragma once

#include <string>
#include <vector>

namespace murmur {

struct ListTable {
  std::string kind;                  // "optimizers"
  std::vector<std::string> columns;  // "name", "summary", ..
  std::vector<std::vector<std::string>> rows;
};

std::vector<std::string> list_kinds();
ListTable list_table(const std::string& kind);  // InputError names the nearest kind
std::string to_markdown(const ListTable& table);
std::string to_columns(const ListTable& table);  // for a terminal, aligned by spaces
std::string to_json(const ListTable& table);  // an array of objects with at least name and summary

}  // namespace murmur
