PY := .venv/bin/python
.PHONY: generate
generate:
	find generated -name '*_pb2*' -delete
	$(PY) -m grpc_tools.protoc -I protos -I .cache/protos --python_out=generated --grpc_python_out=generated \
	  --mypy_out=generated --mypy_grpc_out=generated $$(cd protos && find diptych -name '*.proto') buf/validate/validate.proto
	touch generated/diptych/py.typed generated/buf/py.typed
