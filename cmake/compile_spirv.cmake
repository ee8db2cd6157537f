# cmake -DCC=cc -DGLSLANG=glslangValidator -DSHADER=x.lk -DENTRY=x -DOUTPUT=x.spv [-DWORDS="W_TYPE=bf16 Y_TYPE=f32"]
#   -P compile_spirv.cmake
# GLSL's preprocessor cannot join tokens, so C's does the work; its line markers become #line with the .lk file's name.
get_filename_component(folder ${SHADER} DIRECTORY)
get_filename_component(target ${OUTPUT} DIRECTORY)
file(MAKE_DIRECTORY ${target})
set(defines -DLK_ENTRY_${ENTRY}=1 -DLK_SET_VECTOR=1)
separate_arguments(WORDS)
foreach(word IN LISTS WORDS)
  list(APPEND defines -D${word})
endforeach()
set(glsl ${OUTPUT}.comp)
execute_process(COMMAND ${CC} -E -x c -undef ${defines} -include ${folder}/lk_glsl.h -include ${folder}/lk_common.h
  -include ${folder}/lk_tile.h ${SHADER} OUTPUT_VARIABLE text RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${SHADER}: the C preprocessor failed")
endif()
string(REGEX REPLACE "(^|\n)# ([0-9]+ \"[^\"]*\")[^\n]*" "\\1#line \\2" text "${text}")
file(WRITE ${glsl} "#version 450
#extension GL_GOOGLE_cpp_style_line_directive : require
#extension GL_EXT_shader_16bit_storage : require
${text}")
execute_process(COMMAND ${GLSLANG} -V --target-env vulkan1.1 -S comp -o ${OUTPUT} ${glsl} OUTPUT_VARIABLE output
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${SHADER}, kernel ${ENTRY} ${WORDS}, as GLSL:\n${output}")
endif()
