# Stubs for callers in other languages, in dist/stubs/ (docs/clients.md). Versions of plugins and libraries are in
# go.mod, pom.xml and package.json beside this file.
STUBS := dist/stubs
TOOLS := .cache/stubs
DESCRIPTORS := $(TOOLS)/diptych.binpb
GOOGLE := $(TOOLS)/google.binpb
PROTOS = $$(cd protos && find diptych -name '*.proto' | sort)
POM = $(shell sed -n 's:.*<$(1)>\(.*\)</$(1)>.*:\1:p' stubs/java/pom.xml)
PROTOC_JAVA := protoc-$(call POM,protobuf.version)
GRPC_JAVA := protoc-gen-grpc-java-$(call POM,grpc.version)
MACHINE := $(subst Darwin,osx,$(subst Linux,linux,$(shell uname -s)))-$(subst arm64,aarch_64,$(subst aarch64,aarch_64,$(shell uname -m)))
FROM_DESCRIPTORS = --descriptor_set_in=$(DESCRIPTORS):$(GOOGLE) $(PROTOS)
COPY = rm -rf $(STUBS)/$(1) && mkdir -p $(STUBS) && cp -R stubs/$(1) $(STUBS)/$(1)
CONFIG = $(BIN)/python -m diptych_client
NEEDS = @command -v $(1) >/dev/null || { echo "make: $(2) is missing: the stubs for $(3) need it"; exit 1; }

.PHONY: stubs stubs-go stubs-java stubs-typescript stubs-descriptors
stubs: stubs-go stubs-java stubs-typescript ## build stubs for Go, Java and TypeScript in dist/stubs/; needs Go, a JDK, Maven and Node.js

# The errors' details are not among the protos of `make generate`; TypeScript has no package for them and for Money.
stubs-descriptors: $(IMPORTED)/.ready
	@mkdir -p $(TOOLS) && $(BIN)/python -m devstack.describe_protos $(DESCRIPTORS)
	@$(BIN)/python -m grpc_tools.protoc -I $$($(BIN)/python -c 'import google.rpc as g; print(list(g.__path__)[0])')/../.. \
	  --include_imports -o $(GOOGLE) google/rpc/error_details.proto google/type/money.proto

stubs-go: stubs-descriptors
	$(call NEEDS,go,Go 1.26 or later,Go)
	@$(call COPY,go) && go -C $(STUBS)/go build -o $(CURDIR)/$(TOOLS)/go/ tool
	@PATH="$(CURDIR)/$(TOOLS)/go:$$PATH" $(BIN)/python -m grpc_tools.protoc \
	  --go_out=$(STUBS)/go --go_opt=module=diptych.internal/stubs \
	  --go-grpc_out=$(STUBS)/go --go-grpc_opt=module=diptych.internal/stubs $(FROM_DESCRIPTORS)
	@$(CONFIG) > $(STUBS)/go/service_config.json && go -C $(STUBS)/go build ./...
	@echo "$(STUBS)/go: module diptych.internal/stubs"

stubs-java: stubs-descriptors
	$(call NEEDS,javac,a JDK (17 or later),Java)
	$(call NEEDS,mvn,Maven,Java)
	@for plugin in com.google.protobuf:$(PROTOC_JAVA) io.grpc:$(GRPC_JAVA); do \
	  file=$(TOOLS)/$${plugin#*:}-$(MACHINE).exe; test -x $$file && continue; \
	  mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy -DoutputDirectory=$(CURDIR)/$(TOOLS) \
	    -Dartifact=$${plugin%-*}:$${plugin##*-}:exe:$(MACHINE) && chmod +x $$file || exit 1; done
	@$(call COPY,java) && sed "s/@VERSION@/$$(cat VERSION)/" stubs/java/pom.xml > $(STUBS)/java/pom.xml
	@mkdir -p $(STUBS)/java/src/main/java $(STUBS)/java/src/main/resources/diptych
	@$(TOOLS)/$(PROTOC_JAVA)-$(MACHINE).exe --plugin=protoc-gen-grpc-java=$(TOOLS)/$(GRPC_JAVA)-$(MACHINE).exe \
	  --java_out=$(STUBS)/java/src/main/java --grpc-java_out=@generated=omit:$(STUBS)/java/src/main/java $(FROM_DESCRIPTORS)
	@$(CONFIG) > $(STUBS)/java/src/main/resources/diptych/service_config.json
	@mvn -q -B -Dstyle.color=never -f $(STUBS)/java/pom.xml install
	@echo "$(STUBS)/java: diptych:diptych-stubs:$$(cat VERSION), also in the local Maven repository"

stubs-typescript: stubs-descriptors
	$(call NEEDS,npm,Node.js 20 or later,TypeScript)
	@$(call COPY,typescript) && cd $(STUBS)/typescript && npm ci --silent && npm pkg set version=$$(cat $(CURDIR)/VERSION)
	@mkdir -p $(STUBS)/typescript/gen && $(BIN)/python -m grpc_tools.protoc \
	  --plugin=protoc-gen-es=$(STUBS)/typescript/node_modules/.bin/protoc-gen-es \
	  --es_out=$(STUBS)/typescript/gen --es_opt=target=js+dts,import_extension=js \
	  $(FROM_DESCRIPTORS) google/rpc/error_details.proto google/type/money.proto
	@$(CONFIG) > $(STUBS)/typescript/service_config.json
	@echo "$(STUBS)/typescript: package diptych-stubs"
