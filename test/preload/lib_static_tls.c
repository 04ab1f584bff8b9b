// A library whose thread-local block must fit into the space that the loader reserved at the start.
__attribute__((tls_model("initial-exec"))) static __thread char block[32];

int use_block(int value) {
  block[value % 32] = (char)value;
  return block[value % 32];
}
