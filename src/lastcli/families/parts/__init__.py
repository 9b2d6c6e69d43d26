"""What several families share: names, complex storage, discretisation, building blocks of their models."""
