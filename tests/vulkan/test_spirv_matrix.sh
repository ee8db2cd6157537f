# Those with cooperative matrices, which need newer tools.
exec sh "$(dirname -- "$0")/test_spirv.sh" cooperative
