-- The product catalogue that `search_products` and `generate_report` read. The checks keep a page of a tool below the limit
-- of a result for every row.

CREATE TABLE products (
  tenant_id text NOT NULL,
  id text NOT NULL CHECK (char_length(id) <= 200),
  name text NOT NULL CHECK (char_length(name) <= 500),
  description text NOT NULL DEFAULT '',
  category text NOT NULL DEFAULT '' CHECK (char_length(category) <= 200),
  price_cents integer NOT NULL CHECK (price_cents >= 0),
  stock integer NOT NULL DEFAULT 0 CHECK (stock >= 0),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT tollgate.isolate('products');
-- Search reads the tenant's own rows in the order of its answer and stops when the page is full, in a table of any size.
-- An index on the searched text would not be used: ILIKE is not leakproof, so row security compares `tenant_id` first.
CREATE INDEX products_by_name ON products (tenant_id, name, id);
