"""Operations, traces and abstract values: what every transform stands on."""
