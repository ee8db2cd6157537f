# cmake -DNVCC= -DSOURCE= -DFATBIN= -DTARGETS="-gencode ..." -DINCLUDES="-I..." -P compile_cuda.cmake
# Compiles one file of kernels. Beside X.fatbin it leaves what nvcc made on the way, for the checks of tests/cuda:
# X.ptx, the first architecture's PTX, and X.usage, what ptxas says of registers, spills and shared memory.
string(REGEX REPLACE "\\.fatbin$" "" base ${FATBIN})
get_filename_component(name ${base} NAME)
separate_arguments(targets UNIX_COMMAND "${TARGETS}")
separate_arguments(includes UNIX_COMMAND "${INCLUDES}")
file(REMOVE_RECURSE ${base}.parts)
file(MAKE_DIRECTORY ${base}.parts)
execute_process(COMMAND ${NVCC} -fatbin -std=c++17 -O3 -Xptxas -v --keep --keep-dir ${base}.parts ${targets} ${includes}
    -o ${FATBIN} ${SOURCE}
  RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE complained)
file(WRITE ${base}.usage "${said}${complained}")
string(REGEX REPLACE "(ptxas info|    [0-9]+ bytes stack frame)[^\n]*\n" "" rest "${said}${complained}")
if(NOT rest STREQUAL "")
  message("${rest}")
endif()
if(failed)
  file(REMOVE ${FATBIN})
  message(FATAL_ERROR "nvcc does not compile ${SOURCE}")
endif()
# with one architecture X.ptx, with several X.compute_80.ptx
string(REGEX MATCH "compute_[0-9a-z]+" first "${TARGETS}")
foreach(candidate ${name}.ptx ${name}.${first}.ptx)
  if(EXISTS ${base}.parts/${candidate})
    file(COPY_FILE ${base}.parts/${candidate} ${base}.ptx)
  endif()
endforeach()
file(REMOVE_RECURSE ${base}.parts)
