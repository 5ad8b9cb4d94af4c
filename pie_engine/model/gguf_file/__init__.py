"""GGUF files as model folders: what a file says, in the words of a Hugging Face checkpoint. No torch but in `tensors`.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
