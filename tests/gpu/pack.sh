#!/usr/bin/env bash
# Gathers in build-gpu-packages/ what the build needs and a bare CUDA machine lacks: headers, two
# shared libraries with what they need in turn, and the font. `make gpu-check` uses the folder where
# it exists. It also holds the commit and the checksums of the tree, for machines without git.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=build-gpu-packages
triplet=x86_64-linux-gnu

fail() { echo "gpu-pack: $*" >&2; exit 1; }

# Copies files or folders from /usr to the same place under $to; links become what they point to.
take() {
  local path
  for path in "$@"; do
    [ -e "/usr/$path" ] || fail "/usr/$path is missing; run \`make setup\` first"
    mkdir -p "$to/$(dirname "$path")"
    cp -rL "/usr/$path" "$to/$path"
  done
}

[ "$(uname -m)" = x86_64 ] || fail "only for x86-64"
rm -rf "$to"
mkdir -p "$to/lib/$triplet"
take include/fmt include/nlohmann include/CLI include/toml++ include/doctest
take include/stb/stb_{image,image_write,truetype}.h
take lib/$triplet/cmake/fmt lib/cmake/doctest share/cmake/nlohmann_json share/cmake/CLI11
take share/fonts/truetype/dejavu/DejaVuSans.ttf
take "lib/$triplet/libfmt.so.9"
cp "$to/lib/$triplet/libfmt.so.9" "$to/lib/$triplet/libfmt.so.9.1.0"  # the name in fmt's CMake files

# Loaded before anything else by `cmake -C`, so that nothing is searched for elsewhere.
cat > "$to/packages.cmake" << 'END'
set(here ${CMAKE_CURRENT_LIST_DIR})
set(libraries ${here}/lib/x86_64-linux-gnu)
set(STB_INCLUDE ${here}/include CACHE PATH "")
set(TOML_INCLUDE ${here}/include CACHE PATH "")
set(fmt_DIR ${libraries}/cmake/fmt CACHE PATH "")
set(doctest_DIR ${here}/lib/cmake/doctest CACHE PATH "")
set(nlohmann_json_DIR ${here}/share/cmake/nlohmann_json CACHE PATH "")
set(CLI11_DIR ${here}/share/cmake/CLI11 CACHE PATH "")
set(MURMUR_FONT ${here}/share/fonts/truetype/dejavu/DejaVuSans.ttf CACHE FILEPATH "")
set(CMAKE_BUILD_RPATH ${libraries} CACHE PATH "")
END

git rev-parse --short=12 HEAD > "$to/commit"
if [ -n "$(git status --porcelain -- . ':!docs/results')" ]; then echo dirty >> "$to/commit"; fi
git ls-files -z --cached --others --exclude-standard -- . ':!docs/results' |
  xargs -0 sha256sum > "$to/tree.sha256"
echo "$to: $(du -sm "$to" | cut -f1) MiB, commit $(tr '\n' ' ' < "$to/commit")"
