# The kernels of shaders/*.lk: their text is embedded in the library (OpenCL compiles it at run time), and where
# glslangValidator is there, they are compiled to SPIR-V and embedded too, for Vulkan.
file(GLOB LK_SHADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/*.lk)
set(LK_SHADER_PRELUDES ${PROJECT_SOURCE_DIR}/shaders/lk_opencl.h ${PROJECT_SOURCE_DIR}/shaders/lk_common.h
  ${PROJECT_SOURCE_DIR}/shaders/lk_tile.h)
set(LK_SHADER_TEXTS ${PROJECT_BINARY_DIR}/shader_texts.c)
add_custom_command(OUTPUT ${LK_SHADER_TEXTS}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${LK_SHADER_TEXTS} "-DFILES=${LK_SHADER_PRELUDES};${LK_SHADERS}"
    -P ${PROJECT_SOURCE_DIR}/cmake/embed_shaders.cmake
  DEPENDS ${LK_SHADERS} ${LK_SHADER_PRELUDES} ${PROJECT_SOURCE_DIR}/cmake/embed_shaders.cmake VERBATIM)
target_sources(lorikeet_objects PRIVATE ${LK_SHADER_TEXTS})

# Kernels with cooperative matrices need a compiler that knows them, newer than Debian 12's: ./bootstrap puts one into
# build/tools. Without one they are left out, and the rows say so.
set(LK_GLSLANG_MATRIX)
file(WRITE ${PROJECT_BINARY_DIR}/CMakeFiles/knows.comp
  "#version 450\n#extension GL_KHR_cooperative_matrix : require\nlayout(local_size_x = 1) in;\nvoid main() {}\n")
foreach(candidate IN ITEMS ${LK_GLSLANG} ${PROJECT_SOURCE_DIR}/build/tools/glslangValidator)
  execute_process(COMMAND ${candidate} -V --target-env vulkan1.1 -o ${PROJECT_BINARY_DIR}/CMakeFiles/knows.spv
    ${PROJECT_BINARY_DIR}/CMakeFiles/knows.comp RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  if(result EQUAL 0 AND NOT LK_GLSLANG_MATRIX)
    set(LK_GLSLANG_MATRIX ${candidate})
  endif()
endforeach()
if(NOT LK_GLSLANG_MATRIX)
  message(STATUS "no glslangValidator that knows GL_KHR_cooperative_matrix: Vulkan's kernels for it are left out")
endif()

# Vulkan gets them as SPIR-V, one module per kernel and choice of words; all else is set when it is loaded.
file(GLOB LK_GLSL_PRELUDES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/lk_*.h
  ${PROJECT_SOURCE_DIR}/shaders/native/vulkan/*.h)
file(GLOB LK_VULKAN_SHADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/shaders/native/vulkan/*.lk)
set(LK_REDUCTION group subgroup) # launches that do not say which get the first
set(LK_MATRIX emulated)
if(LK_GLSLANG_MATRIX)
  list(APPEND LK_MATRIX cooperative)
endif()
set(LK_X_TYPE f32 f16 bf16 i32)
set(LK_Y_TYPE f32 f16 bf16 i32)
set(LK_W_TYPE f32 f16 bf16)
set(LK_B_TYPE f16 bf16)

# lk_word_choices(<variable> <shader> <entry>): what the words that the kernel depends on can be: the types named in its list
# of buffers, FUNCTION where the text has functions, MATRIX where it has matrices, REDUCTION where it reduces rows. A list of "W_TYPE=bf16 Y_TYPE=f32"; one empty choice, "-", where
# it depends on none.
function(lk_word_choices variable shader entry)
  file(READ ${shader} text)
  string(REGEX MATCHALL "#define FUNCTION_[a-z0-9_]+" LK_FUNCTION "${text}")
  list(TRANSFORM LK_FUNCTION REPLACE "#define FUNCTION_" "")
  string(REPLACE "\\\n" " " text "${text}")
  string(REGEX MATCH "#define ${entry}_BUFFERS[^\n]*" buffers "${text}")
  set(choices "-")
  if(LK_FUNCTION)
    string(APPEND buffers FUNCTION)
  endif()
  if(text MATCHES "LK_MATRIX_")
    string(APPEND buffers MATRIX)
  endif()
  if(text MATCHES "LK_ROW_(SUM|REDUCE)")
    string(APPEND buffers REDUCTION)
  endif()
  foreach(name W_TYPE X_TYPE Y_TYPE B_TYPE FUNCTION MATRIX REDUCTION)
    if(buffers MATCHES ${name})
      set(longer)
      foreach(choice IN LISTS choices)
        foreach(type IN LISTS LK_${name})
          list(APPEND longer "${choice} ${name}=${type}")
        endforeach()
      endforeach()
      set(choices ${longer})
    endif()
  endforeach()
  set(${variable} ${choices} PARENT_SCOPE)
endfunction()

if(LK_GLSLANG)
  set(LK_SPIRV)
  set(lines "")
  foreach(shader IN LISTS LK_SHADERS LK_VULKAN_SHADERS)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${shader})
    file(STRINGS ${shader} entries REGEX "^LK_KERNEL\\(")
    foreach(entry IN LISTS entries)
      string(REGEX REPLACE "^LK_KERNEL\\(([a-z0-9_]+)\\).*" "\\1" entry "${entry}")
      lk_word_choices(choices ${shader} ${entry})
      foreach(choice IN LISTS choices)
        string(REGEX REPLACE "^- ?" "" words "${choice}")
        string(REGEX REPLACE "[A-Z_]+=| " "-" suffix "${words}")
        string(REPLACE "--" "-" suffix "${suffix}")
        set(output ${PROJECT_BINARY_DIR}/spirv/${entry}${suffix}.spv)
        set(glslang ${LK_GLSLANG})
        if(words MATCHES "MATRIX=cooperative")
          set(glslang ${LK_GLSLANG_MATRIX})
        endif()
        add_custom_command(OUTPUT ${output}
          COMMAND ${CMAKE_COMMAND} -DCC=${CMAKE_C_COMPILER} -DGLSLANG=${glslang} -DSHADER=${shader} -DENTRY=${entry}
            -DOUTPUT=${output} "-DWORDS=${words}" -P ${PROJECT_SOURCE_DIR}/cmake/compile_spirv.cmake
          DEPENDS ${shader} ${LK_GLSL_PRELUDES} ${PROJECT_SOURCE_DIR}/cmake/compile_spirv.cmake VERBATIM)
        list(APPEND LK_SPIRV ${output})
        string(APPEND lines "${output} ${entry} ${words}\n")
      endforeach()
    endforeach()
  endforeach()
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/spirv.txt CONTENT "${lines}")
  set(LK_SPIRV_KERNELS ${PROJECT_BINARY_DIR}/spirv_kernels.c)
  add_custom_command(OUTPUT ${LK_SPIRV_KERNELS}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${LK_SPIRV_KERNELS} -DLIST=${PROJECT_BINARY_DIR}/spirv.txt
      -P ${PROJECT_SOURCE_DIR}/cmake/embed_spirv.cmake
    DEPENDS ${LK_SPIRV} ${PROJECT_BINARY_DIR}/spirv.txt ${PROJECT_SOURCE_DIR}/cmake/embed_spirv.cmake VERBATIM)
  target_sources(lorikeet_objects PRIVATE ${LK_SPIRV_KERNELS})
else()
  message(STATUS "glslangValidator was not found: the kernels are not checked as GLSL (Debian: glslang-tools)")
endif()
