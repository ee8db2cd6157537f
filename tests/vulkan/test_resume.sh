# See tests/common/resume.sh.
exec sh "$LK_SOURCE_DIR/tests/common/resume.sh" vulkan
