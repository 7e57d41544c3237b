INSERT INTO orders (customer, item) VALUES ($1, $2) RETURNING id
