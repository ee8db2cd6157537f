# The kernels of shaders/*.lk: their text is embedded in the library (OpenCL compiles it at run time), and where
# glslangValidator is there, every entry is compiled to SPIR-V too, so that the text stays within the dialect.
file(GLOB LK_SHADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/*.lk)
set(LK_SHADER_PRELUDES ${PROJECT_SOURCE_DIR}/shaders/lk_opencl.h ${PROJECT_SOURCE_DIR}/shaders/lk_common.h
  ${PROJECT_SOURCE_DIR}/shaders/lk_tile.h)
set(LK_SHADER_TEXTS ${PROJECT_BINARY_DIR}/shader_texts.c)
add_custom_command(OUTPUT ${LK_SHADER_TEXTS}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${LK_SHADER_TEXTS} "-DFILES=${LK_SHADER_PRELUDES};${LK_SHADERS}"
    -P ${PROJECT_SOURCE_DIR}/cmake/embed_shaders.cmake
  DEPENDS ${LK_SHADERS} ${LK_SHADER_PRELUDES} ${PROJECT_SOURCE_DIR}/cmake/embed_shaders.cmake VERBATIM)
target_sources(lorikeet_objects PRIVATE ${LK_SHADER_TEXTS})

find_program(LK_GLSLANG glslangValidator)
file(GLOB LK_GLSL_PRELUDES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/lk_*.h)
if(LK_GLSLANG)
  set(LK_SPIRV)
  foreach(shader IN LISTS LK_SHADERS)
    get_filename_component(name ${shader} NAME_WE)
    file(STRINGS ${shader} entries REGEX "^LK_KERNEL\\(")
    foreach(entry IN LISTS entries)
      string(REGEX REPLACE "^LK_KERNEL\\(([a-z0-9_]+)\\).*" "\\1" entry "${entry}")
      set(output ${PROJECT_BINARY_DIR}/spirv/${entry}.spv)
      add_custom_command(OUTPUT ${output}
        COMMAND ${CMAKE_COMMAND} -DCC=${CMAKE_C_COMPILER} -DGLSLANG=${LK_GLSLANG} -DSHADER=${shader} -DENTRY=${entry}
          -DOUTPUT=${output} -P ${PROJECT_SOURCE_DIR}/cmake/compile_spirv.cmake
        DEPENDS ${shader} ${LK_GLSL_PRELUDES} ${PROJECT_SOURCE_DIR}/cmake/compile_spirv.cmake VERBATIM)
      list(APPEND LK_SPIRV ${output})
    endforeach()
  endforeach()
  add_custom_target(lorikeet_spirv ALL DEPENDS ${LK_SPIRV})
else()
  message(STATUS "glslangValidator was not found: the kernels are not checked as GLSL (Debian: glslang-tools)")
endif()
