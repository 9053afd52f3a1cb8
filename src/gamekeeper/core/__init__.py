"""The vocabulary: values and rules that every other layer shares. Standard library only, no effects."""
