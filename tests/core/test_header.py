"""The public header stands alone: nothing before it, nothing beside it, as C11 and as C++11."""
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef", "-Werror"]
INITIALISED = """
int main(void) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  fa_plan_info plan = FA_PLAN_INFO_INIT;
  fa_kernel_info kernel = FA_KERNEL_INFO_INIT;
  fa_device_info device = FA_DEVICE_INFO_INIT;
  fa_tuning_info tuning = FA_TUNING_INFO_INIT;
  fa_plan_choice choice = FA_PLAN_CHOICE_INIT;
  fa_kv_options cache = FA_KV_OPTIONS_INIT;
  return options.threads || problem.batch != 1 || args.lse || plan.threads || kernel.dtypes || device.units || tuning.used ||
         choice.kernel || cache.num_pages;
}
"""


@pytest.mark.parametrize("compiler, standard, suffix", [
    ("gcc", "c11", "c"), ("clang", "c11", "c"), ("gcc", "c17", "c"),
    ("g++", "c++11", "cpp"), ("clang++", "c++11", "cpp"), ("g++", "c++20", "cpp")])
def test_header_compiles_alone(tmp_path, compiler, standard, suffix):
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    source = tmp_path / f"alone.{suffix}"
    source.write_text("#include <fastattention/fa_kv.h>\n#include <fastattention/fa_tuning.h>\n"
                      "#include <fastattention/fastattention.h>\n#include <fastattention/fa_kv.h>\n"
                      "#include <fastattention/fa_tuning.h>\n#include <fastattention/fastattention.h>\n" + INITIALISED)
    # C++ has no designated initialisers before 20: FA_ATTENTION_ARGS_INIT leaves the tail out there on purpose.
    relaxed = ["-Wno-missing-field-initializers"] if suffix == "cpp" else []
    result = subprocess.run([compiler, f"-std={standard}", *WARNINGS, *relaxed, "-fsyntax-only",
                             f"-I{ROOT / 'include'}", source], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
