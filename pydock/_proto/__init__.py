"""The wire messages as Python classes, generated from ``protos`` by ``tools/dev protos`` and committed.

Never edit a file below this one: change the ``.proto`` source and generate again. A test regenerates everything and compares, another
holds every message, number and method against the facts in ``tests/contract/wire/facts``.

The module of ``protos/a/b/c.proto`` is ``pydock._proto.a.b.c_pb2``, its types stand in the ``.pyi`` beside it. Import the one module
that is needed: each pulls in only what its own source imports. Services have no stubs; their methods are in
``c_pb2.DESCRIPTOR.services_by_name``.

Read ``protos/README.md`` for how `google.protobuf.Any` is used: containerd's type URLs are bare message names, which `Any.Pack`,
`Any.Is` and `Any.Unpack` do not handle.
"""
