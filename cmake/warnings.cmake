# Warnings for our own targets only; they are not passed on to those who link the library.
include(CheckCCompilerFlag)
add_library(lorikeet_warnings INTERFACE)
target_compile_options(lorikeet_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings)
check_c_compiler_flag(-Wformat-truncation LK_HAS_FORMAT_TRUNCATION)
if(LK_HAS_FORMAT_TRUNCATION)
  target_compile_options(lorikeet_warnings INTERFACE -Wno-format-truncation) # messages are cut to their buffer on purpose
endif()
if(LK_WARNINGS_AS_ERRORS)
  target_compile_options(lorikeet_warnings INTERFACE -Werror)
endif()
