"""The wire contract: a copy of `protos/classifier.proto`, its descriptors, and the message classes made from them."""
