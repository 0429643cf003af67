"""The formats of the audit that shows tampering: digests of rows, Merkle trees and signed checkpoints."""
