conventions = {}
