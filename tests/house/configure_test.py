"""CMake in a source tree as a tarball leaves it, inside another repository, without a font.

    configure_test.py CMAKE CXX SOURCE_FOLDER
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    cmake, compiler, source = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder)
        git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
        if shutil.which("git"):
            subprocess.run([*git, "init", "-q"], check=True)
            subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another"], check=True)
        leave_out = shutil.ignore_patterns(".git", "build*", "data", "runs", "docs", "golden")
        shutil.copytree(source, other / "murmur", ignore=leave_out)
        run = subprocess.run(
            [cmake, "-S", other / "murmur", "-B", other / "build", f"-DCMAKE_CXX_COMPILER={compiler}",
             "-DMURMUR_FONT=", "-DMURMUR_CUDA=OFF", "-DMURMUR_MPI=OFF"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    failures = []
    if run.returncode != 0:
        failures.append("CMake fails without a font")
    if "fonts-dejavu-core" not in run.stdout:
        failures.append("the missing font's package is not named")
    if not re.search(r"Murmur [0-9.]+ unknown: ", run.stdout):
        failures.append("the revision is that of the repository around the tree")
    if failures:
        print(run.stdout)
    print("; ".join(failures) or "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
