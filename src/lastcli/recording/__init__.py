"""What arrives at the layers of any model, recorded by the user's own code: docs/capture.md.

* `recorder`: `Capture`, which takes the inputs in, batch by batch, and keeps second moments and a sample of sequences.
* `arrays`: an input as torch, JAX or NumPy holds it, in the order that the engine takes.
* `hooks`: forward hooks on the modules of a torch model that are the checkpoint's layers.
* `intermediates`: the same for flax, by `sow` and its collection of intermediates.
* `file`: the file that all of it becomes, and what is read of it for a checkpoint.
"""
