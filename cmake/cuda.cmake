# The kernels of the CUDA backend, compiled by nvcc to one fatbin per file of shaders/ and shaders/native/cuda, embedded in the
# library. Only nvcc is needed, no CUDA library; without it the backend is there and says so.
#
# LK_CUDA_ARCHITECTURES: which GPUs get machine code. PTX of the first is always there for newer ones, which the driver
# compiles when it first loads it. The default is one architecture, so that a build takes seconds; packages are built
# with -DLK_CUDA_ARCHITECTURES=all.
option(LK_CUDA "Compile the CUDA backend's kernels (needs nvcc)" ON)
set(LK_CUDA_ARCHITECTURES 80 CACHE STRING "sm_ numbers to make machine code for, or all")
include(cmake/cuda_variants.cmake)
lk_cuda_variants(LK_CUDA_FILES ${PROJECT_BINARY_DIR}/cuda)

find_program(LK_NVCC nvcc HINTS $ENV{CUDA_PATH}/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin /opt/cuda/bin)
set(LK_CUDA_IMAGES ${PROJECT_BINARY_DIR}/cuda/images.c)
set(images "/* Made by cmake/cuda.cmake. */\n#include \"backends/cuda/cuda.h\"\n\n")
set(table)
set(LK_CUDA_TOOLKIT)
if(LK_CUDA AND LK_NVCC)
  execute_process(COMMAND ${LK_NVCC} --version OUTPUT_VARIABLE version)
  string(REGEX MATCH "release ([0-9.]+)" version "${version}")
  set(LK_CUDA_TOOLKIT ${CMAKE_MATCH_1})
  execute_process(COMMAND ${LK_NVCC} --list-gpu-code OUTPUT_VARIABLE known)
  set(wanted ${LK_CUDA_ARCHITECTURES})
  if(wanted STREQUAL all)
    set(wanted 80 86 89 90a 100 120)
  endif()
  set(architectures)
  foreach(architecture IN LISTS wanted)
    string(REGEX REPLACE "[a-z]$" "" number ${architecture})
    if(known MATCHES "sm_${number}[ \n]")
      list(APPEND architectures ${architecture})
    else()
      message(STATUS "CUDA ${LK_CUDA_TOOLKIT} does not know sm_${architecture}: left out")
    endif()
  endforeach()
  if(NOT architectures)
    set(architectures 80) # its PTX is for all that are newer
  endif()
  list(GET architectures 0 first)
  set(targets -gencode arch=compute_${first},code=[sm_${first},compute_${first}])
  foreach(architecture IN LISTS architectures)
    if(NOT architecture STREQUAL first)
      list(APPEND targets -gencode arch=compute_${architecture},code=sm_${architecture})
    endif()
  endforeach()
  message(STATUS "CUDA ${LK_CUDA_TOOLKIT}: kernels for sm_${architectures} and PTX")
  file(GLOB LK_CUDA_PRELUDES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/lk_*.h
    ${PROJECT_SOURCE_DIR}/shaders/native/cuda/*.h)
  set(fatbins)
  # lk_cuda_image(<name> <source> <dependencies>...)
  function(lk_cuda_image name source)
    set(fatbin ${PROJECT_BINARY_DIR}/cuda/${name}.fatbin)
    list(JOIN targets " " gencode)
    add_custom_command(OUTPUT ${fatbin} BYPRODUCTS ${PROJECT_BINARY_DIR}/cuda/${name}.ptx ${PROJECT_BINARY_DIR}/cuda/${name}.usage
      COMMAND ${CMAKE_COMMAND} -DNVCC=${LK_NVCC} -DSOURCE=${source} -DFATBIN=${fatbin} "-DTARGETS=${gencode}"
        "-DINCLUDES=-I${PROJECT_SOURCE_DIR} -I${PROJECT_SOURCE_DIR}/shaders" -P ${PROJECT_SOURCE_DIR}/cmake/compile_cuda.cmake
      DEPENDS ${source} ${PROJECT_SOURCE_DIR}/cmake/compile_cuda.cmake ${ARGN} VERBATIM)
    set(fatbins ${fatbins} ${fatbin} PARENT_SCOPE)
    set(images "${images}__asm__(\".section .rodata\\n.balign 16\\nlk_cuda_image_${name}:\\n.incbin \\\"${fatbin}\\\"\\n\"
        \"lk_cuda_image_end_${name}:\\n.previous\");
extern const unsigned char lk_cuda_image_${name}[], lk_cuda_image_end_${name}[];\n" PARENT_SCOPE)
    set(table "${table}    {\"${name}\", lk_cuda_image_${name}, lk_cuda_image_end_${name}},\n" PARENT_SCOPE)
  endfunction()
  foreach(file IN LISTS LK_CUDA_FILES)
    lk_cuda_image(${file} ${PROJECT_BINARY_DIR}/cuda/${file}.cu ${LK_CUDA_FILES_${file}} ${LK_CUDA_PRELUDES})
  endforeach()
  set_source_files_properties(${LK_CUDA_IMAGES} PROPERTIES OBJECT_DEPENDS "${fatbins}")
else()
  message(STATUS "nvcc was not found, or LK_CUDA is off: built without CUDA kernels")
endif()
file(CONFIGURE OUTPUT ${LK_CUDA_IMAGES} @ONLY CONTENT "${images}
const char lk_cuda_toolkit[] = \"${LK_CUDA_TOOLKIT}\";
const lk_cuda_image lk_cuda_images[] = {\n${table}    {NULL, NULL, NULL}};\n")
target_sources(lorikeet_objects PRIVATE ${LK_CUDA_IMAGES})
